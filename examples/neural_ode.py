"""A layer may be a flow: a fold of Runge-Kutta steps over time steps, along a vector field that is a small network.

The network learns Van der Pol's oscillator from points on its trajectories, met after irregular pauses. The baseline is
a recurrent residual network that is told each pause, of the same size and trained the same way. The gradient is the
adjoint of the fold, as of every fold; it is compared with the one that torch's own autograd finds.
"""

from pathlib import Path

import torch
from data import command_line
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "fold(runge_kutta)     runge_kutta(x, dt) = x + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6"
Given = (ff.f32[2], ff.Seq(ff.f32))  # where it starts, and the pauses


def runge_kutta(field):
    """Return the step of the classic method of fourth order (Kutta 1901) along a vector field."""

    def step(x, dt):
        k1 = field(x)
        k2 = field(x + dt / 2 * k1)
        k3 = field(x + dt / 2 * k2)
        k4 = field(x + dt * k3)
        return x + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6

    return step


def compiled(make):
    """Return two programs around a small network: where a step leads in the end, and the path there."""
    step = make(ff.dense(32) >> ff.tanh >> ff.dense(32) >> ff.tanh >> ff.dense(2))
    return ff.compile({"end": (ff.fold(step), Given), "path": (ff.scan(step), Given)})


def residual(change):
    """Return the step of a residual network that is told the pause."""
    return lambda x, dt: x + change(ff.concat(x, dt[None]))


def van_der_pol(x):
    """Return the velocity [..., 2] at points [..., 2] of Van der Pol's oscillator (1926), with damping 1."""
    return torch.stack((x[..., 1], (1 - x[..., 0] ** 2) * x[..., 1] - x[..., 0]), dim=-1)


def trajectories(count, length, seed):
    """Return starts [count, 2], pauses [count, length] and the true points [count, length, 2] after each."""
    generator = torch.Generator().manual_seed(seed)
    x = start = (torch.rand(count, 2, generator=generator) - 0.5) * 5
    pauses = 0.05 + 0.35 * torch.rand(count, length, generator=generator)
    exact, points = runge_kutta(van_der_pol), []  # the same step, on tensors
    for pause in pauses.unbind(1):
        for _ in range(20):
            x = exact(x, pause[:, None] / 20)
        points.append(x)
    return (start, pauses), torch.stack(points, dim=1)


def train(model, given, points, steps, title):
    """Fit the paths."""
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-2, total_steps=steps)
    for _ in tqdm(range(steps), title, unit="step"):
        rows = torch.randint(len(points), (32,))
        loss = ((model(tuple(part[rows] for part in given), entry="path") - points[rows]) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def gradient(model, evaluate, given):
    """Return the gradient of the end by all parameters, as one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(evaluate(given).sum(), list(model.parameters()))])


@torch.no_grad()
def draw(model, given, points):
    """Draw true and learned paths."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4.2), layout="constrained")
    for row, (true, learned) in enumerate(zip(points, model(given, entry="path"))):
        axes.plot(*true.T, color=f"C{row}", alpha=0.5, label=None if row else "true path from a held-out start")
        axes.plot(*learned.T, ".", color=f"C{row}", label=None if row else "neural ODE")
    axes.set(xlabel="position", ylabel="velocity")
    axes.legend(frameon=False, loc="center", fontsize=9)
    figure.savefig(Path(__file__).parents[1] / "docs/pictures/neural_ode.png", dpi=110)


def run(steps: int = 2000, picture: bool = False) -> dict:
    """Train the flow and the residual network on short paths, and judge both on long ones from other starts."""
    torch.manual_seed(0)
    training, (given, points) = trajectories(200, 15, seed=0), trajectories(200, 60, seed=1)
    models, error = {"neural ODE": compiled(runge_kutta), "residual network": compiled(residual)}, {}
    for name, model in models.items():
        train(model, *training, steps, name)
        with torch.no_grad():
            error[name] = ((model(given) - points[:, -1]) ** 2).mean().sqrt().item()
    flow, few = models["neural ODE"], tuple(part[:8] for part in given)
    found, expected = gradient(flow, flow, few), gradient(flow, flow.eager, few)
    difference = ((found - expected).norm() / expected.norm()).item()
    if picture:
        draw(flow, tuple(part[:4] for part in given), points[:4])
    return {
        "result": f"{error['neural ODE']:.3f} root mean square error after 60 pauses from held-out starts, trained on "
        f"15; the gradient differs from torch's autograd by {difference:.0e}",
        "baseline": f"{error['residual network']:.3f}, a residual network of the same size",
        "beats": error["neural ODE"] < error["residual network"],
        "measured": error | {"gradient difference": difference},
        "signature": flow.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
