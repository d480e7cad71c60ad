# The steps of setup_libtorch.sh: checks of a libtorch folder, finding Python, fetching and unpacking wheels.
# They share its variables cache (the user's cache folder), link (.libtorch), tmp, arch and python.
# shellcheck shell=bash disable=SC2154

# --- checks ---------------------------------------------------------------------------------------------------------

# problem_of FOLDER: prints the first reason why it cannot be used, or nothing.
problem_of() {
    local folder=$1 version lib missing
    [ -d "$folder" ] || { echo "it is missing"; return; }
    for lib in libtorch.so libtorch_cpu.so libc10.so; do
        [ -e "$folder/lib/$lib" ] || { echo "lib/$lib is missing"; return; }
    done
    [ -e "$folder/include/torch/csrc/api/include/torch/torch.h" ] || { echo "the headers in include/ are missing"; return; }
    version=$(version_of "$folder")
    [ "$version" = 2.11.0 ] || { echo "it is version ${version:-unknown}, and tch 0.24 needs 2.11.0"; return; }
    # ldd asks the real loader, so this also finds a C library that is too old
    for lib in libtorch.so libtorch_cuda.so; do
        [ -e "$folder/lib/$lib" ] || continue
        missing=$(ldd "$folder/lib/$lib" 2>&1 | grep 'not found' | head -n 1) || true
        [ -z "$missing" ] || { echo "lib/$lib does not load:$(printf '%s' "$missing" | tr -s '[:space:]' ' ')"; return; }
    done
}

# As problem_of, for a folder that cargo is to use through .cargo/config.toml.
problem_of_link() {
    local problem
    problem=$(problem_of "$1")
    [ -n "$problem" ] || grep -qF "{ value = \"$(readlink -f "$1")\" }" "$1/cargo.toml" 2>/dev/null ||
        problem="its cargo.toml is missing or names another folder"
    printf '%s' "$problem"
}

# version_of FOLDER: from the header, which every form of libtorch carries.
version_of() {
    sed -n '/define TORCH_VERSION \\/{n;s/.*"\(.*\)".*/\1/p;q}' "$1/include/torch/headeronly/version.h" 2>/dev/null || true
}

kind_of() { if [ -e "$1/lib/libtorch_cuda.so" ]; then echo cuda; else echo cpu; fi; }

describe() { printf '%s, %s form, in %s' "$(version_of "$1")" "$(kind_of "$1")" "$(readlink -f "$1")"; }

need_platform() {
    [ "$(uname -s)" = Linux ] || die "this set-up knows Linux only, and this is $(uname -s)" \
        "use env_shell/start_experiment_container.sh, or set LIBTORCH to a libtorch 2.11.0 for this system"
    arch=$(uname -m)
    case $arch in
        x86_64) ;;
        aarch64) say "note: 64-bit ARM is not tested" ;;
        *) die "there is no libtorch 2.11.0 wheel for $arch" "set LIBTORCH to a libtorch 2.11.0 built for this machine" ;;
    esac
}

need_compiler() {
    local tool
    for tool in cc c++ readelf; do
        command -v "$tool" >/dev/null 2>&1 ||
            die "$tool was not found: tch compiles C++ against libtorch" \
                "install a C++ compiler (Debian: apt install build-essential; Fedora: dnf install gcc-c++)"
    done
    printf 'int main(void){return 0;}\n' | cc -x c - -o /dev/null -lgomp -lstdc++ 2>/dev/null ||
        die "the C compiler cannot link a program with libgomp and libstdc++" \
            "install the whole compiler (Debian: apt install build-essential; Fedora: dnf install gcc-c++ libgomp)"
}

need_space() {
    local free_mb
    free_mb=$(df -Pk "$1" | awk 'NR == 2 {print int($4 / 1024)}')
    [ "$free_mb" -ge "$2" ] || die "$1 has $free_mb MB free, and libtorch needs $2 MB while it is made" \
        "free some space, or set ANYO_CACHE to a folder on another disk"
}

# cpu or cuda
wanted_kind() {
    local driver
    case ${ANYO_CUDA:-} in
        1) echo cuda; return ;;
        0) echo cpu; return ;;
        "") ;;
        *) die "ANYO_CUDA=$ANYO_CUDA is neither 0 nor 1" ;;
    esac
    if nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then
        driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
        if [ "${driver%%.*}" -lt 580 ] 2>/dev/null; then
            say "warning: the NVIDIA driver is $driver, and CUDA 13 needs 580 or later: the GPU will not be usable"
        fi
        echo cuda
    else
        echo cpu
    fi
}

# --- Python ---------------------------------------------------------------------------------------------------------

python_candidates() {
    local python seen=""
    if [ -n "${ANYO_PYTHON:-}" ]; then
        set -- "$ANYO_PYTHON"
    else
        set -- ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} ${CONDA_PREFIX:+"$CONDA_PREFIX/bin/python"} python3 python
    fi
    for python in "$@"; do
        python=$(command -v "$python" 2>/dev/null) || continue
        case $seen in *"|$python|"*) continue ;; esac
        seen="$seen|$python|"
        printf '%s\n' "$python"
    done
}

# torch_of PYTHON: "VERSION FOLDER", without importing torch, which takes seconds.
torch_of() {
    # from / so that a folder named torch in the current one is not taken for it
    (cd / && "$1" - 2>/dev/null <<'PY'
import importlib.util, os, re, sys
spec = importlib.util.find_spec("torch")
if spec is None or not spec.origin:
    sys.exit(1)
folder = os.path.dirname(os.path.realpath(spec.origin))
with open(os.path.join(folder, "version.py")) as f:
    print(re.search(r"__version__ = ['\"]([^'\"]+)", f.read()).group(1), folder)
PY
    )
}

python_with_pip() {
    local python
    for python in $(python_candidates); do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null &&
            "$python" -m pip --version >/dev/null 2>&1; then
            printf '%s\n' "$python"
            return 0
        fi
    done
    return 1
}

# pip_download FOLDER ARGUMENT...: wheels only; explains the usual failures.
pip_download() {
    local folder=$1 log=$tmp/pip.log quiet=() tags=()
    shift
    [ -t 2 ] || quiet=(--quiet)
    # torch has wheels for Python 3.10 and later; an older pip fetches one of those, only its C++ part is used
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || ! supported_by_pip "$python"; then
        local minor
        tags=(--python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none)
        for minor in 28 27 26 25 24 17; do tags+=(--platform "manylinux_2_${minor}_$arch"); done
        tags+=(--platform "manylinux2014_$arch" --platform any)
    fi
    # TMPDIR: /tmp is often small. No pip cache: it would keep a second copy of half a gigabyte.
    if TMPDIR=$tmp "$python" -m pip download "${quiet[@]}" --no-cache-dir --only-binary=:all: --disable-pip-version-check \
        "${tags[@]}" --dest "$folder" "$@" >&2 2> >(tee "$log" >&2); then
        return 0
    fi
    sleep 0.2 # let tee finish
    if grep -qiE 'no space left' "$log"; then
        die "the disk filled up while pip was fetching into $folder" "free some space and run this again; what is finished is kept"
    elif grep -qiE 'NewConnectionError|Name or service not known|name resolution|unreachable|ProxyError|timed out|ConnectionReset|ConnectionError|Connection refused|IncompleteRead|SSLError' "$log"; then
        die "pip could not reach its package index" \
            "connect to the network (or set up pip's proxy or mirror) and run this again; without a network set LIBTORCH to an unpacked libtorch 2.11.0, or copy $cache/libtorch-2.11.0-cpu from another machine"
    fi
    die "pip has no wheel for $* on this machine ($arch, $("$python" --version 2>&1), $(ldd --version 2>&1 | head -n 1))" \
        "see pip's message above; torch 2.11.0 needs a C library of 2.28 or later; or set LIBTORCH to a libtorch 2.11.0"
}

# A Python newer than every torch 2.11.0 wheel (3.14 is the last) needs explicit tags too.
supported_by_pip() { "$1" -c 'import sys; sys.exit(sys.version_info >= (3, 15))'; }

# one_wheel FOLDER PATTERN: the newest match, since an earlier run may have left one for another Python.
one_wheel() { find "$1" -maxdepth 1 -name "$2" -printf '%T@ %p\n' | sort -rn | sed -n '1s/^[^ ]* //p'; }

# The NVIDIA packages that the wheel names, as pip requirements without markers.
cuda_requirements() {
    "$python" - "$1" <<'PY'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    for line in wheel.read(name).decode().splitlines():
        if line.startswith(("Requires-Dist: nvidia-", "Requires-Dist: cuda-toolkit")):
            print(line.split(":", 1)[1].split(";")[0].strip())
PY
}

# unpack FOLDER cpu|all WHEEL...: only libraries and headers, without the Python parts.
unpack() {
    "$python" - "$@" <<'PY' || die "the wheel could not be unpacked into $1" "free some space (5 GB for the CUDA form), then run this again"
import os, re, shutil, sys, zipfile
folder, which, wheels = sys.argv[1], sys.argv[2], sys.argv[3:]
keep = re.compile(r"(torch/include/|torch/lib/[^/]*\.so|nvidia/.*/lib/[^/]*\.so)")
drop = re.compile(r".*/(libtorch_python|libshm)[^/]*$")
gpu = re.compile(r"torch/lib/(libtorch\.so|libtorch_cuda|libc10_cuda|libcaffe2_nvrtc|libtorch_nvshmem)")
for path in wheels:
    with zipfile.ZipFile(path) as wheel:
        names = [n for n in wheel.namelist() if keep.match(n) and not drop.match(n) and not n.endswith("/")]
        cuda = any("libtorch_cuda.so" in n for n in names)
        for name in names:
            # a CPU-only wheel has a real libtorch.so, which stays
            if which == "cpu" and cuda and gpu.match(name):
                continue
            target = os.path.join(folder, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                with wheel.open(name) as source, open(target, "wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
            except (OSError, zipfile.BadZipFile) as error:
                sys.exit("%s: %s" % (target, error))
            os.chmod(target, 0o755 if "/lib/" in name else 0o644)
PY
}

# --- making the folder ----------------------------------------------------------------------------------------------

# new_folder: $tmp beside the final place, removed when the script ends.
new_folder() {
    [ -z "${tmp:-}" ] || rm -rf "$tmp"
    tmp=$(mktemp -d "$cache/.tmp-libtorch.XXXXXX")
    chmod 755 "$tmp"
}

# lock_cache: one set-up at a time; whoever waits finds the work done. The lock also proves that left-overs are dead.
lock_cache() {
    command -v flock >/dev/null 2>&1 || return 0
    exec 9>"$cache/.libtorch.lock"
    if ! flock -n 9; then
        say "libtorch: another set-up is at work, waiting for it"
        flock 9
    fi
    rm -rf "$cache"/.tmp-libtorch.*
}

# pick_cpu_files TORCH SITE OUT link|move: libtorch_cpu.so, what it needs from TORCH/lib and SITE/nvidia, a small libtorch.so.
pick_cpu_files() {
    local torch=$1 site=$2 out=$3 how=$4 queue=(libtorch_cpu.so libc10.so) name file needed
    mkdir -p "$out"
    [ ! -e "$torch/lib/libtorch.so" ] || [ -e "$torch/lib/libtorch_cuda.so" ] || queue+=(libtorch.so)
    while [ ${#queue[@]} -gt 0 ]; do
        name=${queue[0]}
        queue=("${queue[@]:1}")
        [ ! -e "$out/$name" ] || continue
        file=$(find "$torch/lib" "$site/torch.libs" "$site"/nvidia/*/lib -maxdepth 1 -name "$name" 2>/dev/null | head -n 1) || true
        [ -n "$file" ] || continue # the system's own: libc, libstdc++
        while read -r needed; do queue+=("$needed"); done < <(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
        if [ "$how" = move ]; then mv "$file" "$out/$name"; else ln -s "$file" "$out/$name"; fi
    done
    [ -e "$out/libtorch.so" ] || make_stub "$out"
}

# The wheel's libtorch.so only pulls in the CUDA libraries. This one pulls in the CPU library in its place.
make_stub() {
    printf '/* libtorch.so of the CPU form: nothing but its dependencies */\n' |
        cc -x c -shared -fPIC -o "$1/libtorch.so" - -Wl,-soname,libtorch.so -Wl,--no-as-needed -L"$1" -ltorch_cpu -lc10 \
            -Wl,-rpath,"\$ORIGIN" -Wl,--allow-shlib-undefined ||
        die "the C compiler could not link the small libtorch.so" "see its message above"
}

# link_folders LIB INCLUDE KIND SOURCE: whole folders, where every library finds its neighbours by itself.
link_folders() {
    new_folder
    ln -s "$1" "$tmp/lib"
    ln -s "$2" "$tmp/include"
    finish "linked to $4" "libtorch-2.11.0-$3-$(short_hash "$4")"
}

# write_cargo_toml FOLDER: the real path, not .libtorch, so that clones which share a target folder share torch-sys too.
write_cargo_toml() {
    cat >"$1/cargo.toml" <<TOML
# Written by env_shell/setup_libtorch.sh; .cargo/config.toml reads it through the link .libtorch.
[env]
# a table, because cargo cannot merge a plain text with the table in .cargo/libtorch-missing/cargo.toml
LIBTORCH = { value = "$(readlink -f "$1")" }
TOML
}

# finish ORIGIN NAME: checks $tmp, moves it to its place in the cache in one step and links .libtorch to it.
# On failure sets finish_problem and returns 1.
finish() {
    local origin=$1 final=$cache/$2
    printf '2.11.0\n' >"$tmp/build-version"
    printf '%s on %s\n' "$origin" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$tmp/origin.txt"
    rm -f "$tmp"/pip.log "$tmp"/requirements.txt
    finish_problem=$(problem_of "$tmp")
    if [ -n "$finish_problem" ]; then
        say "libtorch: not used: $finish_problem"
        return 1
    fi
    if [ -e "$final" ]; then
        # running programs keep the libraries that they have open
        mv -T "$final" "$tmp.old"
    fi
    mv -T "$tmp" "$final" || die "$tmp could not be renamed to $final" "see the message above"
    rm -rf "$tmp.old"
    say "libtorch: $final ($origin, $(du -shL "$final" 2>/dev/null | cut -f1))"
    relink "$final"
}

# relink FOLDER: .libtorch points to it; replaced in one step.
relink() {
    if ! { write_cargo_toml "$1" && ln -sfn "$1" "$link.new.$$" && mv -T "$link.new.$$" "$link"; }; then
        die "$link could not be made" "see the message above; the project and cache folders must be writable"
    fi
}

short_hash() { printf '%s' "$1" | sha256sum | cut -c1-8; }
