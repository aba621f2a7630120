import sys

try:
    from .cli import main
except ModuleNotFoundError as error:
    print(f"dfa: this needs the package {error.name}: pip install .", file=sys.stderr)
    sys.exit(2)

sys.exit(main())
