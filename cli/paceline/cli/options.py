"""Every setting that can be given on the command line, once: the commands' flags are generated from this table.

A setting called ``micro-batch`` is the flag ``--micro-batch``, the environment variable ``PACELINE_MICRO_BATCH`` and
the key ``micro-batch`` (or ``micro_batch``) of paceline.toml. Which command has it follows from the command's model.
"""

from __future__ import annotations

from dataclasses import dataclass

from paceline.cli.commands import CommandSettings, RayCommand, RunCommand, ServerCommand, WorkerCommand
from paceline.coordination.policies import POLICY_NAMES

MODELS: dict[str, type[CommandSettings]] = {
    "run": RunCommand,
    "server": ServerCommand,
    "ray": RayCommand,
    "worker": WorkerCommand,
}

TRAINING = "Training"
POLICY = "Policy: who does how many tasks"
WORKERS = "Workers"
FILES = "Files"
NETWORK = "Network"
MACHINE = "This machine"
EXPERIMENTS = "Experiments: make workers slower on purpose"
FAULTS = "Faults"


@dataclass(frozen=True, slots=True)
class Option:
    """One setting.

    Attributes:
        field: attribute of the commands' models.
        panel: heading of the help text that it stands under.
        shows: what stands for its value in the help text; empty for a switch.
        argument: it is given by its position, and has no flag.
    """

    field: str
    panel: str
    shows: str
    help: str
    name: str
    argument: bool = False

    @property
    def flag(self) -> str:
        """Name it as on the command line."""
        return self.shows if self.argument else f"--{self.name}"

    @property
    def variable(self) -> str:
        """Name its environment variable."""
        # PACELINE_LOG says how the server writes its own log.
        name = "loggers" if self.name == "log" else self.name
        return f"PACELINE_{name.upper().replace('-', '_')}"


def _option(field: str, panel: str, shows: str, text: str, name: str = "") -> Option:
    return Option(field, panel, shows, text, name or field.replace("_", "-"))


OPTIONS: tuple[Option, ...] = (
    Option("server", "", "HOST:PORT", "Where the server listens.", "server", argument=True),
    Option("job", "", "JOB", "The job: path/file.py:Class or package.module:Class.", "job", argument=True),
    # ---- training
    _option("tasks", TRAINING, "B", "Tasks per round. A task is one micro-batch; a round makes one model update."),
    _option("micro_batch", TRAINING, "N", "Samples per task."),
    _option("micro_steps", TRAINING, "N|auto", "Compute a task in this many slices, to save memory; auto: as few as "
            "each worker's memory takes."),
    _option("rounds", TRAINING, "N", "End after this many rounds. Of rounds, epochs and until, the first that comes."),
    _option("epochs", TRAINING, "N", "End after this many passes over the data (1, where no end is given)."),
    _option("until", TRAINING, "GOAL", "End when evaluate() gives it: accuracy>=0.97, or error<=0.1."),
    _option("eval_every", TRAINING, "ROUNDS", "Evaluate every so many rounds; 0: after the last one only."),
    _option("patience", TRAINING, "N", "End after N evaluations without a better metric, that of --best or --until."),
    _option("seed", TRAINING, "N", "Same seed, same training."),
    _option("sums", TRAINING, "fast|exact", "exact: float64 sums, the same bits whoever computes what."),
    _option("precision", TRAINING, "fp32|bf16|fp16", "Of forward and backward; the others are autocast, fp16 with a "
            "loss scale."),
    _option("channels_last", TRAINING, "", "Lay batches of pictures out channels last, which convolutions like."),
    _option("compile", TRAINING, "", "Compile the model with torch.compile; a worker that cannot goes on without."),
    _option("init", TRAINING, "FILE", "Start from these weights (safetensors)."),
    _option("threads", TRAINING, "N", "CPU threads of each worker; other counts may round differently."),
    # ---- policy
    _option("policy", POLICY, "NAME", f"{', '.join(POLICY_NAMES[:-1])} or {POLICY_NAMES[-1]}: see "
            "docs/policies.md."),
    _option("constants", POLICY, "C", "How much ata and ata-empirical explore: paper, as-run or a number."),
    _option("alpha_s", POLICY, "SECONDS", "ata's bound of the noise; default: twice the largest learned one.", "alpha"),
    _option("means_s", POLICY, "MEANS", "For fixed and cmab-oracle: seconds per task, w1=0.01,w2=0.02 or "
            "0.01,0.02.", "means"),
    _option("mean_max_s", POLICY, "SECONDS", "cmab-lcb's bound of all means; default: the largest learned one "
            "(experimental).", "mean-max"),
    _option("k_start", POLICY, "N", "Workers (cmab) or results (adaptive-k-sync) of the first round; --tasks is the "
            "most. Default 1, for cmab without --switch-at all."),
    _option("k_step", POLICY, "N", "By so many it grows."),
    _option("switch_at", POLICY, "ROUNDS", "cmab: it grows after these rounds, 100,200,300 or every:100."),
    _option("k_test", POLICY, "pflug|pflug-raw|distance", "adaptive-k-sync: it grows when this test says so."),
    _option("k_burn_in", POLICY, "ROUNDS", "And not before so many rounds since the last time."),
    _option("staleness", POLICY, "R", "Asynchronous policies: drop results R or more versions behind. Default: none, "
            "for ringmaster twice the number of workers."),
    _option("partition", POLICY, "N", "malenia: cut the data into N parts, each of them one worker's."),
    # ---- workers
    _option("workers", WORKERS, "N", "Worker processes to start; they are called w1, w2, ..."),
    _option("ray_address", WORKERS, "ADDRESS", "Of the Ray cluster; auto: the one that this machine belongs to.",
            "address"),
    _option("cpus_per_worker", WORKERS, "N", "CPUs that Ray sets aside for each worker."),
    _option("gpus_per_worker", WORKERS, "N", "And GPUs; default: 1 where the cluster has any."),
    _option("min_workers", WORKERS, "N", "Round 1 waits for this many workers."),
    _option("price", WORKERS, "P,...", "Of a worker's hour, to be shown what a run costs: 2.5, or w1=2.5,w2=0.4."),
    _option("name", WORKERS, "NAME", "Default: the host's name and the first free number on it."),
    _option("loaders", WORKERS, "N", "Processes of each worker that load samples beside the computing; 0: none. "
            "Default: 2 where loading takes long."),
    _option("loader_limit_s", WORKERS, "SECONDS", "A task fails whose samples do not come within this time.",
            "loader-limit"),
    _option("reconnect_for_s", WORKERS, "SECONDS", "Look for a lost server this long.", "reconnect-for"),
    # ---- files
    _option("run_dir", FILES, "DIR", "Keep settings, ledger and model there; default: runs/<job>-<time>."),
    _option("json_file", FILES, "FILE", "Write the run's summary there at its end.", "json"),
    _option("resume", FILES, "RUN", "Go on with this run, from its newest checkpoint; its settings are the defaults."),
    _option("checkpoint_every", FILES, "WHEN", "Save a checkpoint every so many rounds (20), or so often (60s), or "
            "never."),
    _option("keep_checkpoints", FILES, "N", "Keep the newest N checkpoints."),
    _option("best", FILES, "METRIC", "Keep the best version by this metric of evaluate() as best.safetensors: "
            "accuracy, error:min. Default: the one of --until."),
    _option("log", FILES, "LOGGER,...", "Log to csv, tensorboard, wandb, mlflow, or several; see docs/python.md."),
    _option("cache", FILES, "DIR", "Keep copies of shards there; default: ~/.cache/paceline/shards."),
    _option("cache_bytes", FILES, "BYTES", "So much of them; those used longest ago go.", "cache-size"),
    _option("data", FILES, "DIR", "Folder with the data, as this machine sees it; the job finds it in self.data."),
    # ---- network
    _option("bind", NETWORK, "HOST:PORT", "Listen there; port 0 takes a free one."),
    _option("tls_dir", NETWORK, "DIR", "Encrypt; both sides show certificates, which `paceline certs init` makes."),
    _option("tokens", NETWORK, "FILE", "Only who has one of these tokens may join, see or rule; see `paceline token`."),
    _option("token_file", NETWORK, "FILE", "The token to show to the server; else PACELINE_TOKEN, if it is set."),
    _option("insecure", NETWORK, "", "Allow addresses beyond this machine though nothing is encrypted."),
    _option("metrics_port", NETWORK, "PORT", "Serve Prometheus metrics there."),
    _option("metrics_host", NETWORK, "HOST", "And on this address; 0.0.0.0: to everybody who can reach this machine."),
    _option("web_port", NETWORK, "PORT", "Serve a live page of the run there; 0 takes a free port."),
    _option("web_host", NETWORK, "HOST", "And on this address; beyond this machine it needs --tokens and --tls-dir."),
    _option("reflection", NETWORK, "", "Let gRPC tools list the services."),
    _option("inline_bytes", NETWORK, "BYTES", "Models and contributions up to this size travel inside messages."),
    _option("push_memory_bytes", NETWORK, "BYTES", "Memory for contributions that are arriving.", "push-memory"),
    # ---- this machine
    _option("device", MACHINE, "DEVICE", "auto, cpu, cuda or cuda:<number>."),
    _option("eval_device", MACHINE, "DEVICE", "Where evaluate() runs; default: like --device."),
    # ---- experiments
    _option("pace", EXPERIMENTS, "P,...", "Take P times the own compute time per task: 1,2,4,8, or one for all."),
    _option("delay", EXPERIMENTS, "LAW,...", "Extra seconds per task: const:0.01, exp:0.01, shifted-exp:0.01, "
            "uniform:0.01:0.02, lognormal:-4:0.5."),
    _option("delay_seed", EXPERIMENTS, "N", "Of the delays' draws; default: fresh ones."),
    # ---- faults
    _option("lost_after_s", FAULTS, "SECONDS", "A worker whose connection closed may come back so long.", "lost-after"),
    _option("silent_after_s", FAULTS, "SECONDS", "A worker is lost that says nothing for so long.", "silent-after"),
    _option("progress_s", FAULTS, "SECONDS", "Or that makes no progress for so long, or for 8 of its learned task "
            "times, if that is longer.", "progress-after"),
    _option("strikes", FAULTS, "N", "After so many refused contributions a worker gets no tasks for a minute, then "
            "two, up to an hour."),
    _option("grace_s", FAULTS, "TIME", "Told to end by SIGTERM, the server lets the round close so long.", "grace"),
    _option("idle_exit_s", FAULTS, "TIME", "End after so long without any worker; never is possible.", "idle-exit"),
    _option("heartbeat_s", FAULTS, "SECONDS", "A worker with nothing to say says so this often.", "heartbeat"),
)  # fmt: skip


def options_of(command: str) -> tuple[Option, ...]:
    """Give the settings of a command, in the order of its help text."""
    model = MODELS[command]
    return tuple(
        option for option in OPTIONS if option.field in model.model_fields and option.field not in model.not_offered
    )
