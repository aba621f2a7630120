import sys

try:
    from .cli import main
except ModuleNotFoundError as error:
    sys.exit(f"dfa: this needs the package {error.name}: pip install .")

sys.exit(main())
