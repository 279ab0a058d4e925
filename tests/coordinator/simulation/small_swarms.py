"""Small simulated swarms with round figures, so that a test can say what must come out."""

from __future__ import annotations

from coordinator.simulation.churn import Happening, PeerTraits, Script
from coordinator.simulation.report import SimulationReport
from coordinator.simulation.simulator import run_script
from coordinator.simulation.storm_report import StormEventKind
from coordinator.simulation.timings import LinearTime, Timings
from swarm.spec import AveragingSpec, DataSpec, LeaseSpec, ModelSpec, RunSpec, TrainingSpec

# an exchange takes one second whoever takes part, everything else nothing
ONE_SECOND = Timings(
    handshake_model=LinearTime(0.0, 0.0),
    exchange_models={"gradients": LinearTime(1.0, 0.0), "state": LinearTime(0.0, 0.0)},
    join_seconds=(5.0,),
)


def small_spec(target: int = 1000, micro_batch: int = 10, **averaging: float) -> RunSpec:
    """A run with a tiny model; leases renewed so often that nobody notices anything late."""
    return RunSpec(
        name="small",
        model=ModelSpec(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            embedding_size=16,
            max_position_embeddings=64,
        ),
        data=DataSpec(vocab_size=256, sequence_length=16),
        training=TrainingSpec(target_batch_size=target, micro_batch_size=micro_batch),
        averaging=AveragingSpec(
            **{
                "matchmaking_time": 4.0,
                "request_timeout": 1.0,
                "next_chunk_timeout": 7.0,
                "allreduce_timeout": 60.0,
                **averaging,
            }
        ),
        leases=LeaseSpec(period=0.01, expiration=3.0),
    )


def run(
    *blows: tuple[float, str, int],
    peers: int = 3,
    speed: float = 50.0,
    bandwidth: float = float("inf"),
    seconds: float = 300.0,
    spec: RunSpec | None = None,
    timings: Timings = ONE_SECOND,
    late: tuple[float, ...] = (),
    seed: int = 0,
) -> SimulationReport:
    """Peers that all start at 0, further ones at the times `late`, and blows (seconds, kind, peer's number)."""
    starts = [0.0] * peers + list(late)
    happenings = [
        *(Happening(t, StormEventKind.START, number) for number, t in enumerate(starts)),
        *(Happening(t, StormEventKind(kind), number) for t, kind, number in blows),
    ]
    traits = tuple(PeerTraits(speed, bandwidth) for _ in starts)
    script = Script(traits, tuple(sorted(happenings, key=lambda one: one.t)))
    return run_script(spec or small_spec(), script, timings, seconds, seed)
