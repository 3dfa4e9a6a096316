"""`python -m yolo9000`, and `torchrun ... -m yolo9000 train ...`: the same as the command `yolo9000`."""

from yolo9000.cli import main

if __name__ == "__main__":
    main()
