"""A small actor-critic agent with continuous actions between 0 and 1 (DDPG)."""

from __future__ import annotations

import random
from collections import deque
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class AgentSettings:
    """Settings of :class:`Agent`.

    Attributes:
        hidden: width of both networks.
        actor_rate: learning rate of the actor.
        critic_rate: learning rate of the critic.
        discount: weight of later rewards; 1, since an episode has one reward for all its steps.
        averaging: how much of the networks goes into their slow copies after every update.
        batch: transitions of an update.
        capacity: transitions that are remembered.
        warmup: episodes of random actions before the agent learns.
        noise: standard deviation of what is added to an action after the warm-up.
        decay: what it is multiplied by after every later episode.
    """

    hidden: int = 64
    actor_rate: float = 1e-3
    critic_rate: float = 1e-2
    discount: float = 1.0
    averaging: float = 0.01
    batch: int = 64
    capacity: int = 2000
    warmup: int = 10
    noise: float = 0.3
    decay: float = 0.95


Transition = tuple[Tensor, float, float, Tensor, bool]
"""State, action, reward, next state, and whether the episode ended."""


@dataclass
class Agent:
    """Deep deterministic policy gradient with one action a step.

    Source: Lillicrap et al., "Continuous control with deep reinforcement learning" (ICLR 2016), as He et al.
    use it in AMC (ECCV 2018): truncated normal noise, and rewards less a moving average.

    Args:
        features: length of a state.
        settings: see :class:`AgentSettings`.
        seed: of weights, noise and batches; the global random state is not used.
    """

    features: int
    settings: AgentSettings = field(default_factory=AgentSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        s = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.actor = nn.Sequential(*_layers(self.features, s.hidden), nn.Sigmoid())
            self.critic = nn.Sequential(*_layers(self.features + 1, s.hidden))
        self._slow_actor, self._slow_critic = deepcopy(self.actor), deepcopy(self.critic)
        self._optimizers = (
            torch.optim.Adam(self.actor.parameters(), s.actor_rate),
            torch.optim.Adam(self.critic.parameters(), s.critic_rate),
        )
        self._memory: deque[Transition] = deque(maxlen=s.capacity)
        self._random = random.Random(self.seed)
        self._mean_reward: float | None = None
        self.episodes = 0

    def act(self, state: Tensor, low: float = 0.0, high: float = 1.0) -> float:
        """An action between ``low`` and ``high``: random at first, then the actor's with noise.

        Args:
            state: of shape ``(features,)``.
            low: the lowest action.
            high: the highest.
        """
        later = self.episodes - self.settings.warmup
        if later < 0:
            return self._random.uniform(low, high)
        with torch.no_grad():
            action = float(self.actor(state))
        action += self._random.gauss(0.0, self.settings.noise * self.settings.decay**later)
        return min(max(action, low), high)

    def best(self, state: Tensor) -> float:
        """The actor's action, without noise."""
        with torch.no_grad():
            return float(self.actor(state))

    def learn(self, states: list[Tensor], actions: list[float], reward: float) -> None:
        """Remember an episode, all steps of which get the reward, and update the networks once a step."""
        following = [*states[1:], torch.zeros_like(states[-1])]
        last = len(states) - 1
        for number, (state, action) in enumerate(zip(states, actions, strict=True)):
            self._memory.append((state, action, reward, following[number], number == last))
        self.episodes += 1
        if self.episodes > self.settings.warmup:
            for _ in states:
                self._update()

    def _update(self) -> None:
        batch = self._random.sample(list(self._memory), min(self.settings.batch, len(self._memory)))
        states = torch.stack([item[0] for item in batch])
        actions = torch.tensor([[item[1]] for item in batch])
        rewards = torch.tensor([[item[2]] for item in batch])
        following = torch.stack([item[3] for item in batch])
        ended = torch.tensor([[item[4]] for item in batch])
        mean = float(rewards.mean())
        old = mean if self._mean_reward is None else self._mean_reward
        self._mean_reward = 0.95 * old + 0.05 * mean
        with torch.no_grad():
            later = self._slow_critic(torch.cat([following, self._slow_actor(following)], 1))
            wanted = rewards - self._mean_reward + self.settings.discount * later.masked_fill(ended, 0.0)
        actor_optimizer, critic_optimizer = self._optimizers
        critic_optimizer.zero_grad()
        F.mse_loss(self.critic(torch.cat([states, actions], 1)), wanted).backward()
        critic_optimizer.step()
        actor_optimizer.zero_grad()
        (-self.critic(torch.cat([states, self.actor(states)], 1)).mean()).backward()
        actor_optimizer.step()
        for slow, fast in ((self._slow_actor, self.actor), (self._slow_critic, self.critic)):
            for old_value, value in zip(slow.parameters(), fast.parameters(), strict=True):
                old_value.data.lerp_(value.data, self.settings.averaging)


def _layers(features: int, hidden: int) -> list[nn.Module]:
    return [
        nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1),
    ]  # fmt: skip
