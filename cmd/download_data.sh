#!/usr/bin/env bash
# Fetches public data sets straight from their owners, checks them, and puts them where conf/dataset expects them.
#
#   cmd/download_data.sh list                 what there is, how large, what is already here
#   cmd/download_data.sh movielens-100k       one or more names
#   cmd/download_data.sh all                  all of them (MovieLens: about 0.5 GB of download, 2.5 GB on disk)
#   cmd/download_data.sh --to DIR NAME...     another folder than data/ (then run with data.root=DIR)
#
# An interrupted download goes on where it stopped; nothing half-made is left in place. Files that are already there
# are kept. Exit code: 0 all there, 1 something failed (the others are still fetched), 2 unknown name.
# ANYO_GROUPLENS_URL and ANYO_AMAZON_URL replace the owners' addresses, for a mirror of your own.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../env_shell/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env_shell/common.sh"

grouplens=${ANYO_GROUPLENS_URL:-https://files.grouplens.org/datasets/movielens}
amazon=${ANYO_AMAZON_URL:-https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2}
names=(movielens-100k movielens-1m movielens-10m movielens-20m movielens-32m movielens-latest-small amazon-video-games-2018)

# describe NAME: sets size, source (archive), inner (folder in it), md5 (of the archive; empty: the owner's .md5 file),
# files (NAME or NAME=SHA256), licence, use (how to run it).
describe() {
    md5="" inner="" licence=grouplens use="dataset=$1"
    case $1 in
        movielens-100k)
            size="5 MB" source=$grouplens/ml-100k.zip inner=ml-100k md5=0e33842e24a9c977be4e0107933c0723
            files=(u.data=06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490
                u.item=553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701 u.user u.genre README)
            ;;
        movielens-1m)
            size="6 MB" source=$grouplens/ml-1m.zip inner=ml-1m md5=c4d9eecfca2ab87c1945afe126590906
            files=(ratings.dat movies.dat=0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9
                users.dat=1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3 README)
            ;;
        movielens-10m)
            size="63 MB" source=$grouplens/ml-10m.zip inner=ml-10M100K md5=ce571fd55effeba0271552578f2648bd
            files=(ratings.dat movies.dat README.html)
            use="dataset=movielens-1m dataset.path=$1/ratings.dat dataset.items.path=$1/movies.dat dataset.items.text.encoding=utf8"
            ;;
        movielens-20m)
            size="190 MB" source=$grouplens/ml-20m.zip inner=ml-20m md5=cd245b17a1ae2cc31bb14903e1204af3
            files=(ratings.csv movies.csv README.txt)
            use=$(csv_use "$1")
            ;;
        movielens-32m)
            size="239 MB" source=$grouplens/ml-32m.zip inner=ml-32m
            files=(ratings.csv movies.csv README.txt)
            use=$(csv_use "$1")
            ;;
        movielens-latest-small)
            size="1 MB" source=$grouplens/ml-latest-small.zip inner=ml-latest-small
            files=(ratings.csv movies.csv README.txt)
            use=$(csv_use "$1")
            ;;
        amazon-video-games-2018)
            size="> 100 MB" licence=amazon
            source="$amazon/categoryFilesSmall/Video_Games_5.json.gz $amazon/metaFiles2/meta_Video_Games.json.gz"
            # one JSON object a line, hence the extension
            files=(Video_Games_5.ndjson meta_Video_Games.ndjson)
            use="dataset=table dataset.path=$1/Video_Games_5.ndjson dataset.columns={user: reviewerID, item: asin, time: unixReviewTime}"
            ;;
        *) return 1 ;;
    esac
}

csv_use() {
    printf 'dataset=table dataset.path=%s/ratings.csv dataset.columns={user: userId, item: movieId, time: timestamp}' "$1"
}

licence_note() {
    case $1 in
        grouplens) say "  terms: GroupLens, University of Minnesota: research use; acknowledge the set in publications; no redistribution
  without permission, no commercial use without permission. The full text is the README beside the data." ;;
        amazon) say "  terms: Amazon review data (2018), McAuley group, UC San Diego: offered for research; no formal licence is stated.
  Cite Ni, Li, McAuley: Justifying recommendations using distantly-labeled reviews, EMNLP 2019." ;;
    esac
}

present() {
    local file
    for file in "${files[@]}"; do
        case $file in README*) continue ;; esac
        [ -s "$to/$1/${file%%=*}" ] || return 1
    done
}

list() {
    say "data sets (in $to):"
    local name
    for name in "${names[@]}"; do
        describe "$name"
        printf '  %-24s %9s  %s\n' "$name" "$size" "$(if present "$name"; then echo "here"; else echo "-"; fi)"
    done
}

# by_hand NAME: what to do without a network.
by_hand() {
    local file wanted=()
    for file in "${files[@]}"; do wanted+=("${file%%=*}"); done
    say "hint: with a browser, or on another machine, fetch  $source"
    say "hint: and put these files into $to/$1/ : ${wanted[*]}"
}

# checksum of FILE with TOOL (md5sum, sha256sum)
sum_of() { "$2" <"$1" | cut -d' ' -f1; }

# fetch URL FILE: continues FILE.part. Returns curl's code, having explained it.
fetch() {
    local url=$1 part=$2.part code=0 progress=(--silent --show-error)
    [ ! -t 2 ] || progress=(--progress-bar)
    [ ! -s "$part" ] || say "  continuing after $(du -h "$part" | cut -f1)"
    curl --fail --location --retry 3 --connect-timeout 20 --speed-limit 100 --speed-time 60 "${progress[@]}" \
        --continue-at - --output "$part" "$url" || code=$?
    # 33 and 36: the server cannot continue. 22 with a part: most likely it was complete (the checksum decides).
    if [ "$code" = 33 ] || [ "$code" = 36 ]; then
        say "  the server cannot continue a download, starting again"
        rm -f "$part"
        code=0
        curl --fail --location --retry 3 --connect-timeout 20 "${progress[@]}" --output "$part" "$url" || code=$?
    fi
    case $code in
        0) return 0 ;;
        22) [ -s "$part" ] && return 0
            say "error: $url: the server does not have it (see curl's message)" ;;
        23) say "error: $part: cannot be written; is the disk full?" ;;
        *) say "error: $url: cannot be reached (curl code $code); is there a network?" ;;
    esac
    return 1
}

# owner_md5 URL: the checksum that the owner publishes beside the archive; nothing when there is none.
owner_md5() { curl --fail --location --silent --connect-timeout 20 "$1.md5" 2>/dev/null | grep -oiE '[0-9a-f]{32}' | head -n 1 || true; }

# archive URL FILE: fetches and checks; a download that was continued and is wrong is fetched once more from the start.
archive() {
    local url=$1 file=$2 sum=$md5 got try
    [ -n "$sum" ] || sum=$(owner_md5 "$url")
    for try in 1 2; do
        local continued=no
        [ ! -s "$file.part" ] || continued=yes
        fetch "$url" "$file" || return 1
        if [ -z "$sum" ]; then
            say "  note: no checksum is published for it; the archive's own checks must do"
            break
        fi
        got=$(sum_of "$file.part" md5sum)
        [ "$got" != "$sum" ] || break
        rm -f "$file.part"
        if [ "$continued" = no ] || [ "$try" = 2 ]; then
            say "error: $url: wrong content: md5 wanted $sum, got $got (removed)"
            say "hint: run this again; if it stays wrong, the owner has changed the file or a proxy alters it"
            return 1
        fi
        say "  the continued download is wrong, starting again"
    done
    mv "$file.part" "$file"
}

unpack_zip() {
    if command -v unzip >/dev/null 2>&1; then unzip -q -o "$1" -d "$2"; else python3 -m zipfile -e "$1" "$2"; fi
}

# get NAME: 0 when all its files are in place.
get() {
    local name=$1 work=$to/.download/$1 url file sha got
    describe "$name"
    say "$name ($size)"
    if present "$name"; then
        say "  already in $to/$name"
        check_files "$name" "$to/$name" || return 1
        say "  run it with: $use"
        return 0
    fi
    licence_note "$licence"
    if ! mkdir -p "$work" 2>/dev/null; then
        say "error: $to: cannot be written"
        say "hint: choose another folder with --to DIR"
        return 1
    fi
    for url in $source; do
        file=$work/$(basename "$url")
        [ -s "$file" ] || archive "$url" "$file" || { by_hand "$name"; return 1; }
        rm -rf "$work/out.$(basename "$url")"
        mkdir "$work/out.$(basename "$url")"
        case $file in
            *.zip) unpack_zip "$file" "$work/out.$(basename "$url")" ;;
            *.gz) gzip -dc "$file" >"$work/out.$(basename "$url")/$(basename "$url" .json.gz).ndjson" ;;
        esac || {
            say "error: $file: cannot be unpacked; removed"
            say "hint: run this again; if it repeats, look at the free space of $to"
            rm -rf "$file" "$work/out.$(basename "$url")"
            return 1
        }
    done
    mkdir -p "$work/ready"
    for file in "${files[@]}"; do
        got=$(find "$work"/out.*/"$inner" -maxdepth 1 -name "${file%%=*}" | head -n 1)
        if [ -n "$got" ]; then
            mv "$got" "$work/ready/"
        elif [ "${file#README}" = "$file" ]; then
            say "error: $source: has no ${file%%=*}"
            by_hand "$name"
            return 1
        fi
    done
    check_files "$name" "$work/ready" || return 1
    mkdir -p "$to/$name"
    # a rename per file, within one file system; what a person put there stays
    for file in "$work"/ready/*; do
        [ -e "$to/$name/$(basename "$file")" ] || mv "$file" "$to/$name/"
    done
    rm -rf "$work"
    rmdir "$to/.download" 2>/dev/null || true
    say "  in $to/$name"
    say "  run it with: $use"
}

# check_files NAME FOLDER: the known sha256 of single files.
check_files() {
    local file sha got
    for file in "${files[@]}"; do
        sha=${file#*=}
        if [ "$sha" = "$file" ] || [ ! -e "$2/${file%%=*}" ]; then continue; fi
        got=$(sum_of "$2/${file%%=*}" sha256sum)
        if [ "$got" != "$sha" ]; then
            say "error: $2/${file%%=*}: differs from the owner's file: sha256 wanted $sha, got $got"
            say "hint: move it away and run this again; or keep it and pass its folder with dataset.path=PATH"
            return 1
        fi
    done
}

main() {
    to=$anyo_root/data
    local wanted=() failed=() name
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; return 0 ;;
            --to) [ $# -ge 2 ] || { say "error: --to wants a folder"; return 2; }
                to=$(realpath -m -- "$2"); shift ;;
            list) list; return 0 ;;
            all) wanted+=("${names[@]}") ;;
            *) describe "$1" || { say "error: no data set $1"; say "hint: one of ${names[*]}, or all, or list"; return 2; }
                wanted+=("$1") ;;
        esac
        shift
    done
    if [ ${#wanted[@]} -eq 0 ]; then
        list
        say "hint: name one or more, or all"
        return 2
    fi
    need_command curl "install curl (Debian: apt install curl)"
    command -v unzip >/dev/null 2>&1 || need_command python3 "install unzip (Debian: apt install unzip) or Python"
    for name in "${wanted[@]}"; do get "$name" || failed+=("$name"); done
    [ ${#failed[@]} -eq 0 ] || { say "error: not fetched: ${failed[*]}"; return 1; }
}

main "$@"
