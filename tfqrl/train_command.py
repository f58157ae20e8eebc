"""`tfqrl train`."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from edge.errors import UnknownNameError, UsageError
from edge.records import from_plain
from tfqrl import zoo
from tfqrl.options import import_tensorflow, optional, parse, value_of

USAGE = """usage: tfqrl train ALGORITHM --env ENV [options]

Train a policy into a run folder, from which it can be resumed and converted.

  a2c    advantage actor-critic (Mnih et al. 2016)                     Box or Discrete actions
  ppo    proximal policy optimisation (Schulman et al. 2017)           Box or Discrete actions
  dqn    deep Q-networks (Mnih et al. 2015)                            Discrete actions
  ddpg   deep deterministic policy gradient (Lillicrap et al. 2015)    Box actions
  td3    twin delayed DDPG (Fujimoto et al. 2018)                      Box actions
  sac    soft actor-critic (Haarnoja et al. 2018)                      Box actions
  d4pg   distributed distributional DDPG (Barth-Maron et al. 2018)     Box actions

examples:
  tfqrl train ppo --env HalfCheetah-v5 --steps 1000000 --seed 0 --out runs/cheetah
  tfqrl train ppo --out runs/cheetah --resume
  tfqrl train sac --env Hopper-v5 --no-zoo --policy-learning-rate 1e-3
  tfqrl train td3 --env Hopper-v5 --compress qat --weight-bits 4 --activation-bits 4 --init-from runs/hopper

--compress METHOD compresses the policy while it is trained, and adds the method's own options:
  qat        computes on integer grids, from a part of the training on (--weight-bits, --activation-bits, --delay ...)
  prune      sets the smallest weights to zero (--sparsity, --layer-sparsity, --pattern ...)
  prune-qat  both
  cluster    lets each layer's weights share a few values (--clusters)
  svd        learns which weights it can do without (--sparsity)
  vnq        learns which ones, and lets the others of a layer be one value or its opposite
  qabp       learns which ones, and how many bits each of the others needs (--sparsity, --max-bits, --fine-tune ...)

`tfqrl train ALGORITHM --help` has the options of each; with --env ENV it shows the defaults for that environment, which
are those of `tfqrl zoo` where that names it."""

# What `tfqrl actorq` adds to a run's folder.
DISTRIBUTION = "distribution.json"

Config = TypeVar("Config")
Compression = TypeVar("Compression")


@dataclasses.dataclass(frozen=True)
class TrainCommand(Generic[Config]):
    """Train a policy into a run folder, from which it can be resumed and converted.

    With --env, the defaults shown are those for that environment: tuned ones where the zoo names it (`tfqrl zoo`). With
    --compress METHOD, the policy is compressed while it is trained, and the method's own options are shown too.

    Example: tfqrl train {algorithm} --env {env} --seed 0 --out runs/first

    Example: tfqrl train {algorithm} --out runs/first --resume

    Attributes:
      config: the algorithm's own options.
      out: folder of the run (default: runs/ALGORITHM-ENV-SEED).
      resume: go on from the run's last checkpoint, with the run's own options; --steps may be raised.
      no_zoo: take the algorithm's own defaults, even where the zoo has tuned ones.
    """

    config: Config
    out: Annotated[Path | None, optional("RUN")] = None
    resume: bool = False
    no_zoo: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressingTrainCommand(TrainCommand[Config], Generic[Config, Compression]):
    """The same with the options of what --compress names.

    Attributes:
      compression: how the policy is compressed while it is trained.
    """

    compression: Compression


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    if words and words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if not words or words[0].startswith("-"):
        raise UsageError(f"Name an algorithm: tfqrl train {{{','.join(zoo.algorithms())}}} --env ENV --out RUN.")
    import_tensorflow()
    from tfqrl import agents

    agents.check_trainable(words[0])
    text = inspect.cleandoc(TrainCommand.__doc__ or "").split("\nAttributes:")[0]
    text = text.format(algorithm=words[0], env=next(iter(zoo.environments(words[0]))))
    return train(words[0], words[1:], f"tfqrl train {words[0]}", text)


def train(name: str, words: list[str], program: str, description: str) -> int:
    """Train a run of the algorithm called `name` as the words after `program` say; returns the exit code."""
    from tfqrl import agents

    algorithm = agents.get(name)
    assert algorithm.train is not None

    def parsed(default: TrainCommand[Any] | None) -> Any:
        return _parse(algorithm.config, words, default, program, description)

    if "--resume" in words and value_of(words, "--compress") is not None:
        raise UsageError("--resume goes on with what the run is compressed by: leave --compress out.")
    run, _ = prepared(name, words, program, parsed)
    if run is None:
        return 0
    algorithm.train(run)
    print(f"Trained: {run.path}. Convert it with: tfqrl convert {run.path} --recipe int8 --out policy.tflite")
    return 0


def prepared(
    name: str, words: list[str], program: str, parsed: Callable[[TrainCommand[Any] | None], Any]
) -> tuple[Any, Any]:
    """The run that is to be trained, new or taken up again, and the command.

    The run is None if there is nothing left to do; why was printed then.

    Args:
      name: the algorithm.
      words: after `program`.
      program: the command, for what it says.
      parsed: what makes a command of the words, given one whose values are the defaults.

    Raises:
      UserError: the words are refused, or the run, or its environment.
    """
    from tfqrl import agents, envs
    from tfqrl.runs import Run

    algorithm = agents.get(name)
    if "--resume" in words and not {"-h", "--help"} & set(words):
        saved = _saved_run(words, name, program)
        kept = agents.config_of(saved)
        command = parsed(TrainCommand(kept, saved.path, True))
        config = command.config
        check_unchanged(kept, config, ("steps", "target_return"))
        steps = int(saved.load_checkpoint()["steps"]) if saved.has_checkpoint() else 0
        if config.steps <= steps:
            print(f"{saved.path} was trained for {steps:,} steps already. To train it further, give more: --steps N.")
            return None, command
        run = saved.reconfigured(config)
    else:
        command = _with_zoo(name, algorithm.config, words, parsed, lambda text: print(text, file=sys.stderr))
        config = command.config
        path = command.out or Path("runs") / f"{name}-{config.env}-{config.seed}"
        env = envs.make_vector(config.env, 1, seed=config.seed, vec=config.vec, module=config.env_module)
        with contextlib.closing(env):
            algorithm.check(config, env.spec)
            env.reset()  # what is not as its spaces say is refused before there is a folder
        run = Run.create(path, name, config)
    return run, command


def configuration(words: list[str]) -> tuple[str, Any]:
    """The algorithm that words name, "distill" or what `tfqrl train` takes, and its configuration, the zoo included.

    Raises:
      UserError: what the command refuses.
    """
    from tfqrl import agents

    if words[0] != "distill":
        agents.check_trainable(words[0])
    name, words, config = words[0], words[1:], agents.get(words[0]).config

    def parsed(default: TrainCommand[Any] | None) -> Any:
        return _parse(config, words, default, f"tfqrl train {name}", "")

    return name, _with_zoo(name, config, words, parsed, lambda text: None).config


def _parse(
    config: type[Any], words: list[str], default: TrainCommand[Any] | None, program: str, description: str
) -> Any:
    method, words = _without(words, "--compress")
    if method is None:
        command_type: Any = TrainCommand[config]
        return parse(command_type, program, words, default, config, description=description)
    from tfqrl.compress import COMPRESSORS, Delayed

    if method not in COMPRESSORS:
        raise UnknownNameError("--compress", method, COMPRESSORS)
    compressor = COMPRESSORS[method]
    command_type = CompressingTrainCommand[config, compressor]
    if default is not None:
        default = CompressingTrainCommand(default.config, default.out, default.resume, compression=compressor())
    command = parse(command_type, program, words, default, config, compressor, description=description)
    compression = command.compression
    if command.config.init_from is not None and isinstance(compression, Delayed):
        compression = compression.of_trained()
    return dataclasses.replace(command, config=dataclasses.replace(command.config, compress=compression))


def _without(words: list[str], option: str) -> tuple[str | None, list[str]]:
    """The value of an option, and the words without it."""
    value = value_of(words, option)
    if value is None:
        return None, words
    kept = [word for word in words if not word.startswith(f"{option}=")]
    while option in kept:
        place = kept.index(option)
        del kept[place : place + 2]
    return value, kept


def _with_zoo(
    name: str,
    config: type[Any],
    words: list[str],
    parsed: Callable[[TrainCommand[Any] | None], Any],
    tell: Callable[[str], None],
) -> Any:
    """A command whose defaults are the zoo's, which is told."""
    env = value_of(words, "--env")
    known = env is not None and "--no-zoo" not in words and name in zoo.algorithms()
    tuned = zoo.tuned(name, env) if known and env is not None else {}
    if not tuned:
        return parsed(None)
    default = TrainCommand(from_plain(config, {"env": env, **tuned}, f"tfqrl/zoo/{name}.yaml"))

    def say(values: Mapping[str, Any]) -> None:
        tell(f"Tuned configuration of the zoo for {name} on {env}: {zoo.text(values)}; --no-zoo goes without.")

    try:
        command = parsed(default)
    except UnknownNameError:
        raise
    except UsageError:
        say(tuned)  # what was refused may be one of these, beside what was given
        raise
    say({key: value for key, value in tuned.items() if getattr(command.config, key) == getattr(default.config, key)})
    return command


def _saved_run(words: list[str], algorithm: str, program: str) -> Any:
    from tfqrl import agents
    from tfqrl.runs import Run

    out = value_of(words, "--out")
    if out is None:
        raise UsageError("--resume needs the run's folder: --out RUN.")
    run = Run.open(out)
    if run.algorithm != algorithm:
        agents.check_trainable(run.algorithm)
        raise UsageError(f"{run.path} is a run of {run.algorithm}; {program} resumes those of {algorithm}.")
    distributed = (run.path / DISTRIBUTION).exists()
    if distributed != program.startswith("tfqrl actorq"):
        command = f"tfqrl {'actorq' if distributed else 'train'} {algorithm}"
        raise UsageError(f"{run.path} was trained by `{command}`; go on with: {command} --out {run.path} --resume.")
    return run


def check_unchanged(saved: Any, given: Any, free: Sequence[str]) -> None:
    """Refuse options that a run that is resumed cannot have; `free` are those that may change.

    Raises:
      UsageError: another one was given.
    """
    for field in dataclasses.fields(saved):
        before, now = getattr(saved, field.name), getattr(given, field.name)
        if field.name not in free and before != now:
            raise UsageError(
                f"The run was trained with {field.name} {before}; --resume keeps a run's options, so it cannot become "
                f"{now}. Only {' and '.join(free)} may change. Begin a new run with another --out."
            )
