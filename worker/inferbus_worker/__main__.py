"""`python -m inferbus_worker` is `inferbus`, for where the command is not on the path."""

from inferbus_client.cli.main import main

if __name__ == "__main__":
    main()
