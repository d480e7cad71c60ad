#!/usr/bin/env bash
# Tests cmd/download_data.sh against a server on this machine: no network is used. Prints one line per case; exit code
# 0 all passed, 1 a case failed, 77 a needed program is missing (the reason is printed).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
script=$here/../download_data.sh
for program in curl unzip python3 md5sum; do
    command -v "$program" >/dev/null 2>&1 || { echo "skipped: $program is not installed"; exit 77; }
done

work=$(mktemp -d)
server=""
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
mkdir -p "$work/site" "$work/logs"
failures=0
# expect NAME WANTED_CODE CODE LOG [TEXT]: the exit code, and a text that the output must hold
expect() {
    if [ "$2" = "$3" ] && { [ -z "${5:-}" ] || grep -qF -- "$5" "$4"; }; then
        echo "ok    $1"
    else
        echo "WRONG $1: exit code wanted $2, got $3; text wanted: ${5:-any}"
        sed 's/^/      | /' "$4"
        failures=$((failures + 1))
    fi
}
# get LOG ARGUMENT...: runs the script into $work/data
get() {
    local log=$1 code=0
    shift
    env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY -u all_proxy -u ALL_PROXY \
        ANYO_GROUPLENS_URL="$url" ANYO_AMAZON_URL="$url" "$script" --to "$work/data" "$@" >"$log" 2>&1 || code=$?
    echo "$code"
}

# a small stand-in for the archive, larger than one network packet
python3 - "$work/site" <<'PY'
import gzip, hashlib, os, random, sys, zipfile
site = sys.argv[1]
random.seed(7)
rows = "userId,movieId,rating,timestamp\n" + "".join(
    "%d,%d,4.0,%d\n" % (random.randrange(600), random.randrange(9000), random.randrange(10**9)) for _ in range(20000))
for archive, folder in [("ml-latest-small", "ml-latest-small"), ("ml-100k", "ml-100k"), ("ml-32m", "wrong-folder")]:
    with zipfile.ZipFile(os.path.join(site, archive + ".zip"), "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(folder + "/ratings.csv", rows)
        out.writestr(folder + "/movies.csv", "movieId,title,genres\n1,Toy Story (1995),Adventure\n")
        out.writestr(folder + "/u.data", "1\t1\t5\t1\n")
        out.writestr(folder + "/u.item", "1|Toy Story\n")
with open(os.path.join(site, "ml-latest-small.zip"), "rb") as f:
    digest = hashlib.md5(f.read()).hexdigest()
with open(os.path.join(site, "ml-latest-small.zip.md5"), "w") as f:
    f.write("MD5 (ml-latest-small.zip) = %s\n" % digest)
for folder, name in [("categoryFilesSmall", "Video_Games_5"), ("metaFiles2", "meta_Video_Games")]:
    os.makedirs(os.path.join(site, folder))
    with gzip.open(os.path.join(site, folder, name + ".json.gz"), "wt") as f:
        f.write('{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1}\n')
PY

# python's own server does not know ranges, so this one adds them and logs every request's range
cat >"$work/server.py" <<'PY'
import http.server, os, sys
site, log, ranges = sys.argv[1], sys.argv[2], sys.argv[3] == "ranges"
class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *a):
        super().__init__(*a, directory=site)
    def do_GET(self):
        wanted = self.headers.get("Range")
        with open(log, "a") as f:
            f.write("%s %s\n" % (self.path, wanted))
        path = self.translate_path(self.path)
        if not (ranges and wanted and os.path.isfile(path)):
            return super().do_GET()
        size, start = os.path.getsize(path), int(wanted.split("=")[1].split("-")[0])
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", "bytes */%d" % size)
            self.end_headers()
            return
        self.send_response(206)
        self.send_header("Content-Range", "bytes %d-%d/%d" % (start, size - 1, size))
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        with open(path, "rb") as f:
            f.seek(start)
            self.wfile.write(f.read())
    def log_message(self, *a):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
PY
# start MODE: a server in the background; sets url
start() {
    [ -z "$server" ] || { kill "$server"; wait "$server" 2>/dev/null || true; }
    : >"$work/requests"
    rm -f "$work/port"
    python3 "$work/server.py" "$work/site" "$work/requests" "$1" >"$work/port" 2>/dev/null &
    server=$!
    for _ in $(seq 100); do [ -s "$work/port" ] && break; sleep 0.05; done
    url=http://127.0.0.1:$(cat "$work/port")
}
log=$work/logs/log
small=$work/data/.download/movielens-latest-small/ml-latest-small.zip.part

# nothing listens on port 9 of this machine
url=http://127.0.0.1:9
expect "no network" 1 "$(get "$log" movielens-latest-small)" "$log" "cannot be reached"
expect "no network: how to place the files" 1 1 "$log" "put these files into $work/data/movielens-latest-small/ : ratings.csv"
expect "unknown name" 2 "$(get "$log" movielens-2m)" "$log" "one of movielens-100k"
expect "nothing named" 2 "$(get "$log")" "$log" "data sets (in"

start ranges
expect "fetch" 0 "$(get "$log" movielens-latest-small)" "$log" "research use"
expect "fetch: rows are there" 20001 "$(wc -l <"$work/data/movielens-latest-small/ratings.csv")" "$log"
expect "fetch: nothing left over" no "$(if [ -e "$work/data/.download" ]; then echo yes; else echo no; fi)" "$log"
expect "again: nothing to do" 0 "$(get "$log" movielens-latest-small)" "$log" "already in"

rm -rf "$work/data"
mkdir -p "$(dirname "$small")"
head -c 5000 "$work/site/ml-latest-small.zip" >"$small"
expect "resume" 0 "$(get "$log" movielens-latest-small)" "$log" "continuing after"
expect "resume: only the rest was asked for" 0 0 "$work/requests" "/ml-latest-small.zip bytes=5000-"

rm -rf "$work/data"
mkdir -p "$(dirname "$small")"
cp "$work/site/ml-latest-small.zip" "$small"
expect "resume of a complete file" 0 "$(get "$log" movielens-latest-small)" "$log"

rm -rf "$work/data"
mkdir -p "$(dirname "$small")"
head -c 5000 /dev/zero >"$small"
expect "resume of a wrong beginning" 0 "$(get "$log" movielens-latest-small)" "$log" "starting again"

rm -rf "$work/data"
expect "wrong checksum" 1 "$(get "$log" movielens-100k)" "$log" "md5 wanted 0e33842e24a9c977be4e0107933c0723, got"
expect "wrong checksum: nothing in place" no "$(if [ -e "$work/data/movielens-100k/u.data" ]; then echo yes; else echo no; fi)" "$log"
expect "not on the server" 1 "$(get "$log" movielens-20m)" "$log" "does not have it"
expect "archive without the files" 1 "$(get "$log" movielens-32m)" "$log" "has no ratings.csv"
expect "gzip" 0 "$(get "$log" amazon-video-games-2018)" "$log" "reviewerID"
expect "one fails, the others come" 1 "$(get "$log" movielens-20m movielens-latest-small)" "$log" "not fetched: movielens-20m"
expect "one fails: the other is there" 0 "$(get "$log" movielens-latest-small)" "$log" "already in"

mkdir -p "$work/data/movielens-100k"
for file in u.data u.item u.user u.genre; do echo x >"$work/data/movielens-100k/$file"; done
expect "a changed file is named" 1 "$(get "$log" movielens-100k)" "$log" "u.data: differs from the owner's file"

start plain
rm -rf "$work/data"
mkdir -p "$(dirname "$small")"
head -c 5000 "$work/site/ml-latest-small.zip" >"$small"
expect "a server without ranges" 0 "$(get "$log" movielens-latest-small)" "$log" "starting again"

[ "$failures" -eq 0 ] || { echo "$failures cases failed"; exit 1; }
