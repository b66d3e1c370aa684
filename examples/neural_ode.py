"""A layer may be a flow: a fold of Runge-Kutta steps over time steps, along a vector field that is a small network.

The network learns Van der Pol's oscillator from points on its trajectories, met after irregular pauses. The baseline is
a recurrent residual network that is told each pause, of the same size and trained the same way. The gradient is the
adjoint of the fold, as of every fold; it is compared with the one that torch's own autograd finds.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

import foldfuse as ff

EXPRESSION = "fold(runge_kutta)     runge_kutta(x, dt) = x + dt * (k1 + 2*k2 + 2*k3 + k4) / 6"
Point, Pauses = ff.f32[2], ff.Seq(ff.f32)


def network(name):
    """Return a small network that gives two numbers."""
    with ff.scope(name):
        return ff.dense(32) >> ff.tanh >> ff.dense(32) >> ff.tanh >> ff.dense(2)


def runge_kutta(field):
    """Return the step of the classic method of fourth order (Kutta 1901) along a vector field."""

    def step(x, dt):
        k1 = field(x)
        k2 = field(x + dt / 2 * k1)
        k3 = field(x + dt / 2 * k2)
        k4 = field(x + dt * k3)
        return x + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6

    return step


def residual(change):
    """Return the step of a residual network that is told the pause."""
    return lambda x, dt: x + change(ff.concat(x, dt[None]))


def programs(step):
    """Return where a step leads in the end, and the path there, both from a pair (start, pauses)."""
    return {"end": (ff.fold(step), (Point, Pauses)), "path": (ff.scan(step), (Point, Pauses))}


def van_der_pol(x):
    """Return the velocity [..., 2] at points [..., 2] of Van der Pol's oscillator (1926), with damping 1."""
    return torch.stack((x[..., 1], (1 - x[..., 0] ** 2) * x[..., 1] - x[..., 0]), dim=-1)


def trajectories(count, length, seed):
    """Return starts [count, 2], pauses [count, length] and the true points [count, length, 2] after each, in f32."""
    generator = torch.Generator().manual_seed(seed)
    x = start = (torch.rand(count, 2, generator=generator, dtype=torch.float64) - 0.5) * 6
    pauses = 0.05 + 0.35 * torch.rand(count, length, generator=generator, dtype=torch.float64)
    exact, points = runge_kutta(van_der_pol), []
    for pause in pauses.unbind(1):
        for _ in range(20):
            x = exact(x, pause[:, None] / 20)
        points.append(x)
    return start.float(), pauses.float(), torch.stack(points, dim=1).float()


def train(model, data, steps, title):
    """Fit the paths from every start."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in tqdm(range(steps), title, unit="step"):
        rows = torch.randint(len(data[0]), (32,), generator=generator)
        start, pauses, points = (part[rows] for part in data)
        loss = ((model((start, pauses), entry="path") - points) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def gradient_difference(model, given):
    """Return by how much the adjoint's gradients differ from those of torch's autograd, relatively."""
    wanted = list(model.parameters())
    found, expected = (
        torch.cat([g.flatten() for g in torch.autograd.grad(evaluate(given, entry="end").sum(), wanted)])
        for evaluate in (model, model.eager)
    )
    return ((found - expected).norm() / expected.norm()).item()


def draw(truth, learned):
    """Draw true and learned paths."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4.2), layout="constrained")
    for name, paths, style in (("true", truth, "-"), ("neural ODE, held-out starts", learned, ".")):
        for row, path in enumerate(paths):
            axes.plot(*path.T, style, color=f"C{row}", alpha=0.4 if name == "true" else 1, ms=5, label=name if not row else None)
    axes.set(xlabel="position", ylabel="velocity")
    axes.legend(frameon=False, loc="upper right", fontsize=8)
    figure.savefig(Path(__file__).parent.parent / "docs" / "pictures" / "neural_ode.png", dpi=110)


def run(steps: int = 600, picture: bool = False) -> dict:
    """Train the flow and the residual network on short paths, and judge both on long ones from other starts."""
    torch.manual_seed(0)
    training, held_out = trajectories(200, 15, seed=0), trajectories(200, 60, seed=1)
    flow = ff.compile(programs(runge_kutta(network("field"))))
    plain = ff.compile(programs(residual(network("change"))))
    error = {}
    for name, model in (("neural ODE", flow), ("residual network", plain)):
        train(model, training, steps, name)
        with torch.no_grad():
            error[name] = ((model(held_out[:2]) - held_out[2][:, -1]) ** 2).mean().sqrt().item()
    difference = gradient_difference(flow, tuple(part[:8] for part in held_out[:2]))
    if picture:
        with torch.no_grad():
            draw(held_out[2][:4], flow((held_out[0][:4], held_out[1][:4]), entry="path"))
    return {
        "result": f"{error['neural ODE']:.3f} root mean square error after 60 pauses from held-out starts, trained on "
        f"15; gradients differ from torch's autograd by {difference:.0e}",
        "baseline": f"{error['residual network']:.3f}, a residual network of the same size",
        "beats": error["neural ODE"] < error["residual network"],
        "measured": error | {"gradient difference": difference},
        "signature": flow.signature,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="steps of training (default: %(default)s)")
    parser.add_argument("--picture", action="store_true", help="draw the paths under docs/pictures")
    arguments = parser.parse_args()
    told = run(arguments.steps, arguments.picture)
    print(f"{told['signature']}\n\nresult    {told['result']}\nbaseline  {told['baseline']}")
