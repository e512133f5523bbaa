"""``python -m sish.vqvae``."""

from sish.vqvae.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
