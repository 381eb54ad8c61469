"""`python -m benchmarks.noisy_labels`: the demo."""

from .demo import main

if __name__ == "__main__":
    main()
