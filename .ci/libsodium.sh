#!/bin/sh
# Put the libsodium that interpeer bundles into src/interpeer/_lib: the library, its licence, and its bill of materials.
#
# The source is the one inside the PyNaCl source distribution on PyPI, so that no host but the package index is needed;
# pip checks its hash before anything in it runs. What was built is kept in .cache (INTERPEER_CACHE names another
# folder) under a key made of this script and of what the result depends on; a second call only copies.
#
#   PYTHON   an interpreter with pip (default: python3)
#   CC, CFLAGS, MACOSX_DEPLOYMENT_TARGET   as usual
set -eu
script=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
cd "$(dirname "$script")/.."

PYNACL=1.6.2
PYNACL_SHA256=018494d6d696ae03c7e656e5e74cdfd8ea1326962cc401bcf018f1ed8436811c
SODIUM=1.0.20                       # the "1.0.20-stable" branch of 2025-12-31, with the fix of CVE-2025-69277

bundle=src/interpeer/_lib
case $(uname -s) in
    Darwin) library=libsodium.dylib ;;
    MINGW* | MSYS* | CYGWIN*) library=libsodium.dll ;;
    *) library=libsodium.so ;;
esac

# A library built for one C library or architecture must not be taken for another (containers share the checkout).
key=$({
    cat "$script"
    uname -sm
    ldd --version 2>&1 | head -n 1
    echo "${CC-} ${CFLAGS-} ${MACOSX_DEPLOYMENT_TARGET-}"
} | cksum)
python=${PYTHON:-python3}
root=$(mkdir -p "${INTERPEER_CACHE:-.cache}" && cd "${INTERPEER_CACHE:-.cache}" && pwd)
built=$root/libsodium-$SODIUM-${key%% *}

fetch() {                           # leaves the unpacked source in $work/libsodium
    printf 'PyNaCl==%s --hash=sha256:%s\n' "$PYNACL" "$PYNACL_SHA256" >"$work/requirements"
    "$python" -m pip -q --disable-pip-version-check download --no-deps --no-binary PyNaCl --require-hashes \
        -r "$work/requirements" -d "$work"
    tar -C "$work" -xzf "$work/pynacl-$PYNACL.tar.gz"
    mv "$work/pynacl-$PYNACL/src/libsodium" "$work/libsodium"
}

# No --enable-opt: it means -march=native, and the library would die on other processors.
# No --enable-minimal: pysodium does not import without the functions that this leaves out.
build_posix() {
    cd "$work/libsodium"
    CFLAGS="${CFLAGS--O3} -g0 -ffile-prefix-map=$work=." ./configure --quiet --disable-static --enable-shared --prefix="$work/out"
    make -j "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)" -C src/libsodium
    make -C src/libsodium install-libLTLIBRARIES
    cp "$work/out/lib/$library" "$work/$library"
    if [ "$library" = libsodium.dylib ]; then
        strip -x "$work/$library"
        install_name_tool -id "@rpath/$library" "$work/$library"
        codesign --force --sign - "$work/$library"          # both steps above break the linker's signature
    else
        strip --strip-unneeded "$work/$library"
    fi
}

build_windows() {                   # from Git's shell, with msbuild on the path
    case $("$python" -c 'import sysconfig; print(sysconfig.get_platform())') in *arm64) platform=ARM64 ;; *) platform=x64 ;; esac
    cd "$work/libsodium"
    msbuild builds/msvc/vs2022/libsodium.sln -m -nologo -v:quiet -p:Configuration=ReleaseDLL -p:Platform=$platform
    cp bin/$platform/Release/*/dynamic/$library "$work/$library"
}

bill_of_materials() {               # CycloneDX; without a date or serial number, so that equal builds are equal
    sha256=$("$python" -c '
import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$work/$library")
    cat <<END
{
  "bomFormat": "CycloneDX",
  "specVersion": "1.6",
  "version": 1,
  "metadata": {
    "component": {"type": "library", "name": "interpeer", "bom-ref": "interpeer", "purl": "pkg:pypi/interpeer"}
  },
  "components": [
    {
      "type": "library",
      "bom-ref": "libsodium",
      "name": "libsodium",
      "version": "$SODIUM",
      "description": "the stable branch of $SODIUM, as packed in PyNaCl $PYNACL",
      "licenses": [{"license": {"id": "ISC"}}],
      "cpe": "cpe:2.3:a:libsodium:libsodium:$SODIUM:*:*:*:*:*:*:*",
      "purl": "pkg:generic/libsodium@$SODIUM",
      "hashes": [{"alg": "SHA-256", "content": "$sha256"}],
      "externalReferences": [
        {
          "type": "source-distribution",
          "url": "https://pypi.org/project/PyNaCl/$PYNACL/",
          "hashes": [{"alg": "SHA-256", "content": "$PYNACL_SHA256"}]
        },
        {"type": "website", "url": "https://libsodium.org/"}
      ],
      "pedigree": {
        "patches": [{"type": "backport", "resolves": [{"type": "security", "id": "CVE-2025-69277"}]}]
      }
    }
  ],
  "dependencies": [{"ref": "interpeer", "dependsOn": ["libsodium"]}, {"ref": "libsodium"}]
}
END
}

if [ ! -e "$built/$library" ]; then
    work=$(mktemp -d "$root/libsodium.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    fetch
    if [ "$library" = libsodium.dll ]; then (build_windows); else (build_posix); fi
    mkdir "$work/result"
    cp "$work/$library" "$work/result/$library"
    cp "$work/libsodium/LICENSE" "$work/result/LICENSE.libsodium"
    bill_of_materials >"$work/result/sbom.cdx.json"
    rm -rf "$built"
    mv "$work/result" "$built"
fi

# Only what differs is replaced, and by renaming: a running process may have the old library mapped.
mkdir -p "$bundle"
for file in "$library" LICENSE.libsodium sbom.cdx.json; do
    cmp -s "$built/$file" "$bundle/$file" && continue
    cp "$built/$file" "$bundle/$file.new"
    mv -f "$bundle/$file.new" "$bundle/$file"
done
