"""Commands as a user runs them, in a process forked from one that has loaded the libraries already.

A fresh interpreter spends ten seconds of processor time on importing MONAI and torch. Here one process of each test
worker imports them once and is forked for every command; a fork starts in some milliseconds with the state of a fresh
interpreter. Tests of what a command imports, or of the staged bundle in its own folder, start real interpreters.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess

from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["monai.bundle", "torch.distributed.run", "torch.utils.tensorboard", "transformers"])


def load_libraries() -> None:
    """Starts the process that is forked, also for others who use the standard library's fork server."""
    forkserver.ensure_running()


@dataclass
class Command:
    """A command that runs.

    Attributes:
        words: the command.
        process: it runs in.
        printed: files of its output and errors.
    """

    words: list[str]
    process: BaseProcess
    printed: tuple[Path, Path]

    def finish(self, timeout: float = 300) -> CompletedProcess[str]:
        """Waits for its end, and kills it if it takes longer than some seconds."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        texts = [path.read_text(encoding="utf-8") if path.is_file() else "" for path in self.printed]
        return CompletedProcess(self.words, self.process.exitcode or 0, *texts)


def run(command: Sequence[object], timeout: float = 300) -> CompletedProcess[str]:
    """Runs ``python COMMAND`` in the repository's root to its end.

    Args:
        command: a script with its arguments, or ``-m``, a module and its arguments.
        timeout: in seconds; a command that takes longer is killed.
    """
    with started(command) as running:
        return running.finish(timeout)


def run_in_ranks(command: Sequence[object], size: int, timeout: float = 300) -> list[CompletedProcess[str]]:
    """Runs a command in several ranks, with the variables that torchrun sets; fails if one of them fails."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    group["GLOO_SOCKET_IFNAME"] = "lo"
    with ExitStack() as stack:
        ranks = [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
        done = [one.finish(timeout) for one in [stack.enter_context(started(command, rank)) for rank in ranks]]
    assert not any(rank.returncode for rank in done), "\n".join(rank.stdout + rank.stderr for rank in done)
    return done


@contextmanager
def started(command: Sequence[object], variables: Mapping[str, str] | None = None) -> Iterator[Command]:
    """A command that runs meanwhile, with further variables of its environment."""
    words = [str(word) for word in command]
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder, "out"), Path(folder, "err")
        environment = {**os.environ, **(variables or {})}
        process = _FORKS.Process(target=_become, args=(words, environment, *map(str, printed)))
        process.start()
        yield Command(words, process, printed)


def _become(words: list[str], variables: dict[str, str], out: str, err: str) -> None:
    """In the fork: the command, with what it prints in two files."""
    for path, stream in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, stream)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(ROOT)
    module = words[0] == "-m"
    sys.argv = words[1:] if module else words
    sys.path.insert(0, str(ROOT if module else Path(words[0]).parent))
    code = 0
    try:
        if module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = _code_of(end)
    except BaseException as error:
        code = 1
        try:
            sys.excepthook(type(error), error, error.__traceback__)
        except SystemExit as end:
            code = _code_of(end)
    sys.exit(code)


def _code_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1
