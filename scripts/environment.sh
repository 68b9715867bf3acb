# Makes .venv with adaptkit in it where it is not there yet; the argument is what pip installs. Sourced by the others.
set -eu
cd "$(dirname "$0")/.."
wanted=$1
if [ ! -x .venv/bin/python ]; then
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "adaptkit needs Python 3.11 or newer" >&2; exit 2; }
  python3 -m venv .venv
fi
stamp=".venv/installed-$(printf '%s' "$wanted" | cksum | cut -d' ' -f1)"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  echo "installing adaptkit into .venv (a few minutes the first time)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e "$wanted"
  touch "$stamp"
fi
