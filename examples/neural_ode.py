"""A layer may be a flow: a fold of Runge-Kutta steps over time steps, along a vector field that is a small network."""

import torch
from training import command_line, train

import foldfuse as ff


def runge_kutta(field, x, dt):
    """Return where a vector field leads from x within dt, by the classic method of fourth order (Kutta 1901)."""
    k1 = field(x)
    k2 = field(x + dt / 2 * k1)
    k3 = field(x + dt / 2 * k2)
    k4 = field(x + dt * k3)
    return x + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6


def programs(step):
    """Return two programs around a small network: the end of the path from a start over given pauses, and the path."""
    field = ff.dense(32) >> ff.tanh >> ff.dense(32) >> ff.tanh >> ff.dense(2)
    move = lambda x, dt: step(field, x, dt)
    return {"end": (ff.fold(move), (ff.f32[2], ff.Seq(ff.f32))), "path": (ff.scan(move), (ff.f32[2], ff.Seq(ff.f32)))}


EXPRESSION = "fold(runge_kutta)     runge_kutta(x, dt) = x + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6"
residual = lambda change, x, dt: x + change(ff.concat(x, dt[None]))  # the baseline's step, which is told the time, too


def trajectories(count, length, seed):
    """Return starts [count, 2] and pauses [count, length] of Van der Pol's oscillator (1926), and the points after."""
    velocity = lambda x: torch.stack((x[..., 1], (1 - x[..., 0] ** 2) * x[..., 1] - x[..., 0]), dim=-1)
    generator = torch.Generator().manual_seed(seed)
    x = start = (torch.rand(count, 2, generator=generator) - 0.5) * 5
    pauses = 0.05 + 0.35 * torch.rand(count, length, generator=generator)
    points = []
    for pause in pauses.unbind(1):
        for _ in range(20):
            x = runge_kutta(velocity, x, pause[:, None] / 20)  # the same step, on tensors
        points.append(x)
    return (start, pauses), torch.stack(points, dim=1)


def fit(model, given, points, steps, title):
    """Fit the paths."""

    def loss():
        rows = torch.randint(len(points), (32,))
        return ((model(tuple(part[rows] for part in given), entry="path") - points[rows]) ** 2).mean()

    train(loss, torch.optim.Adam(model.parameters(), 3e-2), steps, clip=1.0, title=title)


def run(steps: int = 2000, picture: bool = False) -> dict:
    """Train both on short paths, and judge both on long ones from other starts; settings were chosen with seed 1."""
    torch.manual_seed(0)
    training, (given, points) = trajectories(200, 15, seed=0), trajectories(200, 60, seed=2)
    flow, plain = (ff.compile(programs(step)) for step in (runge_kutta, residual))
    measured = {}
    for name, model in (("neural ODE", flow), ("residual network", plain)):
        fit(model, *training, steps, name)
        measured[name] = ((model(given).detach() - points[:, -1]) ** 2).mean().sqrt().item()
    ours, baseline = measured.values()
    ends = (evaluate(tuple(part[:8] for part in given)).sum() for evaluate in (flow, flow.eager))
    gradients = (torch.autograd.grad(end, list(flow.parameters())) for end in ends)
    found, expected = (torch.cat([part.flatten() for part in parts]) for parts in gradients)
    measured["gradient difference"] = difference = ((found - expected).norm() / expected.norm()).item()
    if picture:
        import pictures

        pictures.paths("neural_ode", points[:3], flow(tuple(part[:3] for part in given), entry="path").detach())
    return {
        "result": f"{ours:.3f} root mean square error after 60 pauses from held-out starts, trained on 15; "
        f"the gradient differs from torch's autograd by {difference:.0e}",
        "baseline": f"{baseline:.3f}, a residual network of the same size",
        "beats": ours < baseline,
        "measured": measured,
        "signature": flow.signature,
    }


if __name__ == "__main__":
    command_line(run, __doc__)
