"""Commit, confirm and rollback, and what a kill at any moment leaves."""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from agent.service import durable
from agent.service.config import ConfigurationError, parse
from agent.service.configuration_history import VERSION_LIMIT
from agent.service.configuration_store import ConfigurationStore, etag
from agent.service.port import RefusedError


class World:
    """A configuration file, a wall clock and an agent that notes what it is told to run."""

    def __init__(self, directory):
        self.directory = directory
        self.path = directory / "agent.toml"
        self.now = 1_000_000.0
        self.applied = []
        self.refuse = False
        self.path.write_text(self.text(1))

    def text(self, limit):
        return (
            f'role = "gateway"\n[gateway]\ndownstream = "eth1"\nstate_dir = "{self.directory}/state"\n'
            f'channel_limit = {limit}\n[[gateway.relay]]\naddress = "192.0.2.1"\n'
        )

    def open(self):
        return ConfigurationStore(self.path, lambda: self.now)

    async def apply(self, configuration):
        if self.refuse:
            raise RefusedError("not_applicable", "not now")
        self.applied.append(configuration.gateway.channel_limit)

    @property
    def limit(self):
        return parse(self.path.read_text()).gateway.channel_limit


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def commit(store, text, seconds=None):
    await store.set_candidate(text)
    return await store.commit(seconds)


async def until(condition, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_commit_survives_a_restart_and_its_predecessor_can_be_returned_to(world):
    store = world.open()
    store.start(world.apply)
    await commit(store, world.text(2))
    await commit(store, world.text(3))
    store.close()
    again = world.open()
    again.start(world.apply)
    assert (again.configuration.gateway.channel_limit, world.limit) == (3, 3)
    assert [tag for _, tag, _ in again.versions()] == [etag(world.text(2)), etag(world.text(1))]
    await again.rollback(2)
    assert (world.applied, world.limit) == ([2, 3, 1], 1)
    again.close()


async def test_a_candidate_survives_a_restart(world):
    store = world.open()
    await store.set_candidate(world.text(2))
    store.close()
    again = world.open()
    assert again.candidate() == world.text(2)
    await again.commit()
    assert (world.limit, again.candidate()) == (2, None)


async def test_an_unconfirmed_commit_is_rolled_back_when_its_time_is_up(world):
    store = world.open()
    store.start(world.apply)
    await commit(store, world.text(2), 0.05)
    assert world.limit == 2
    await until(lambda: world.limit == 1)
    await until(lambda: "not confirmed" in (store.state().last_error or ""))
    assert store.confirm_deadline is None
    assert world.applied == [2, 1]
    store.close()


async def test_a_confirmed_commit_is_not_rolled_back(world):
    store = world.open()
    store.start(world.apply)
    await commit(store, world.text(2), 600)
    assert store._timer is not None
    await store.confirm()
    assert store._timer is None
    assert (world.limit, world.applied) == (2, [2])
    with pytest.raises(RefusedError) as caught:
        await store.confirm()
    assert caught.value.code == "nothing_to_confirm"
    store.close()


async def test_the_timer_goes_on_while_the_agent_is_down(world):
    store = world.open()
    await commit(store, world.text(2), 100)
    store.close()
    world.now += 99.95
    again = world.open()
    assert again.configuration.gateway.channel_limit == 2
    again.start(world.apply)
    await until(lambda: world.limit == 1)
    again.close()


async def test_a_commit_overdue_at_start_is_rolled_back_before_anything_runs(world):
    store = world.open()
    await commit(store, world.text(2), 100)
    store.close()
    world.now += 101
    again = world.open()
    assert (again.configuration.gateway.channel_limit, again.text, world.limit) == (1, world.text(1), 1)
    assert again.confirm_deadline is None
    assert "rolled back" in (again.state().last_error or "")
    assert again.versions()[0][1] == etag(world.text(2))
    third = world.open()
    assert third.state().last_error is None


async def test_a_clock_set_back_does_not_prolong_the_timer(world):
    store = world.open()
    await commit(store, world.text(2), 0.05)
    store.close()
    world.now -= 1_000_000
    again = world.open()
    again.start(world.apply)
    await until(lambda: world.limit == 1)
    again.close()


async def test_a_second_timed_commit_returns_to_what_was_last_confirmed(world):
    store = world.open()
    store.start(world.apply)
    await commit(store, world.text(2), 600)
    await commit(store, world.text(3), 600)
    await store.rollback()
    assert world.limit == 1
    assert store.confirm_deadline is None
    store.close()


async def test_a_plain_commit_confirms_the_one_before(world):
    store = world.open()
    store.start(world.apply)
    await commit(store, world.text(2), 600)
    await commit(store, world.text(3))
    assert store.confirm_deadline is None
    assert store._timer is None
    assert world.limit == 3
    store.close()


async def test_an_edit_by_hand_is_a_commit_at_reload(world):
    store = world.open()
    store.start(world.apply)
    world.path.write_text(world.text(2))
    assert "+channel_limit = 2" in await store.reload()
    assert world.applied == [2]
    await store.rollback(1)
    assert (world.limit, world.applied) == (1, [2, 1])
    store.close()


async def test_an_edit_by_hand_while_the_agent_was_down_can_be_rolled_back(world):
    world.open()
    world.path.write_text(world.text(2))
    store = world.open()
    assert store.configuration.gateway.channel_limit == 2
    await store.rollback(1)
    assert world.limit == 1


async def test_a_bad_edit_changes_nothing_and_is_remembered(world):
    store = world.open()
    store.start(world.apply)
    world.path.write_text(world.text(2).replace("downstream", "downstraem"))
    with pytest.raises(ConfigurationError):
        await store.reload()
    assert store.configuration.gateway.channel_limit == 1
    assert world.applied == []
    assert "downstraem" in (store.state().last_error or "")
    world.path.write_text(world.text(2))
    await store.reload()
    assert store.state().last_error is None
    store.close()


async def test_a_refusal_of_the_agent_writes_nothing(world):
    store = world.open()
    store.start(world.apply)
    world.refuse = True
    with pytest.raises(RefusedError):
        await commit(store, world.text(2), 60)
    assert (world.limit, store.configuration.gateway.channel_limit) == (1, 1)
    assert store.confirm_deadline is None
    assert store.versions() == []
    store.close()


async def test_a_disk_that_refuses_returns_the_agent_to_what_it_ran(world, monkeypatch):
    store = world.open()
    store.start(world.apply)
    await store.set_candidate(world.text(2))

    def full(path, content, mode=0o600):
        if path == store.path:
            raise OSError(28, "No space left on device")
        return durable.replace_file(path, content, mode)

    monkeypatch.setattr("agent.service.configuration_store.replace_file", full)
    with pytest.raises(OSError, match="No space"):
        await store.commit(60)
    assert (world.applied, world.limit, store.configuration.gateway.channel_limit) == ([2, 1], 1, 1)
    assert store.confirm_deadline is None
    store.close()


async def test_a_rollback_that_fails_is_tried_again(world, monkeypatch):
    monkeypatch.setattr("agent.service.configuration_store.RETRY_SECONDS", 0.05)
    store = world.open()
    store.start(world.apply)
    await commit(store, world.text(2), 0.05)
    world.refuse = True
    await until(lambda: "could not be rolled back" in (store.state().last_error or ""))
    assert world.limit == 2
    world.refuse = False
    await until(lambda: world.limit == 1)
    store.close()


async def test_the_state_directory_cannot_be_changed_by_a_commit(world):
    store = world.open()
    with pytest.raises(RefusedError) as caught:
        await commit(store, world.text(2).replace("/state", "/elsewhere"))
    assert caught.value.code == "needs_restart"


async def test_an_outdated_candidate_is_not_committed(world):
    store = world.open()
    await store.set_candidate(world.text(2))
    store.close()
    world.path.write_text(world.text(3))
    again = world.open()
    with pytest.raises(RefusedError) as caught:
        await again.commit()
    assert caught.value.code == "configuration_changed"


async def test_versions_are_bounded_and_the_newest_stay(world):
    store = world.open()
    for limit in range(2, VERSION_LIMIT + 10):
        await commit(store, world.text(limit))
    versions = store.versions()
    assert len(versions) == VERSION_LIMIT
    assert versions[0][1] == etag(world.text(VERSION_LIMIT + 8))


async def test_changes_at_the_same_time_happen_one_after_the_other(world):
    store = world.open()
    store.start(world.apply)
    tag = store.etag
    answers = await asyncio.gather(
        *(store.set_candidate(world.text(limit), tag) for limit in range(2, 8)),
        store.commit(),
        *(store.set_candidate(world.text(limit), tag) for limit in range(8, 10)),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, RefusedError)]
    assert [item.code for item in refused] == ["configuration_changed"] * 2
    assert (world.limit, world.applied) == (7, [7])
    store.close()


async def test_mode_and_link_of_the_file_are_kept(world):
    real = world.directory / "real.toml"
    world.path.replace(real)
    world.path.symlink_to(real)
    real.chmod(0o644)
    store = world.open()
    await commit(store, world.text(2))
    assert world.path.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o644
    assert parse(real.read_text()).gateway.channel_limit == 2


def run_in_child(action):
    """Run `action` in a forked process and return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def check_after_kill(world, seconds):
    """After a kill in the middle of 1 -> 2: one of both runs, and a timer ends in 1."""
    assert world.limit in {1, 2}
    store = world.open()
    assert store.configuration.gateway.channel_limit == world.limit
    if world.limit == 2:
        assert etag(world.text(1)) in [tag for _, tag, _ in store.versions()]
        assert (store.confirm_deadline is not None) is (seconds is not None)
    assert list(world.directory.rglob(".*.new")) == []
    if seconds is not None:
        world.now += seconds + 1
        assert world.open().configuration.gateway.channel_limit == 1
        assert world.limit == 1


STEPS = 40


@pytest.mark.parametrize("seconds", [None, 60])
def test_a_kill_at_every_step_of_a_commit_leaves_old_or_new(tmp_path, monkeypatch, seconds):
    killed_at = []
    for step in range(STEPS):
        directory = tmp_path / str(step)
        directory.mkdir()
        world = World(directory)

        def action(world=world, step=step):
            left = step

            def dying(original):
                def call(*arguments, **options):
                    nonlocal left
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left -= 1
                    return original(*arguments, **options)

                return call

            async def change():
                store = world.open()
                store.start(world.apply)
                await store.set_candidate(world.text(2))
                os.fsync, os.open = dying(os.fsync), dying(os.open)
                Path.replace, Path.unlink = dying(Path.replace), dying(Path.unlink)
                await store.commit(seconds)

            asyncio.run(change())

        status = run_in_child(action)
        if os.WIFSIGNALED(status):
            killed_at.append(step)
        check_after_kill(world, seconds)
    assert killed_at == list(range(len(killed_at)))
    assert 15 < len(killed_at) < STEPS, "every step was reached, and the last ones were beyond the commit"
    assert world.limit == (2 if seconds is None else 1)


def test_a_kill_at_any_time_leaves_a_configuration_that_was_committed(world):
    chance = random.Random(1)
    for _ in range(15):
        committed, tell = os.pipe()
        child = os.fork()
        if child == 0:

            async def change(tell=tell):
                store = world.open()
                store.start(world.apply)
                limit = store.configuration.gateway.channel_limit
                while True:
                    limit += 1
                    await commit(store, world.text(limit), chance.choice([None, 1000]))
                    os.write(tell, b".")

            try:
                asyncio.run(change())
            finally:
                os._exit(1)
        os.close(tell)
        before = world.limit
        assert os.read(committed, 1) == b"."
        signal.sigtimedwait([], chance.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        ended, status = os.waitpid(child, 0)
        os.close(committed)
        assert ended == child
        assert os.WTERMSIG(status) == signal.SIGKILL
        text = world.path.read_text()
        assert text == world.text(parse(text).gateway.channel_limit)
        assert world.limit >= before
        assert world.open().text == text
    assert world.limit > 10


async def test_a_missing_state_directory_is_made_for_its_owner_and_group_only(world):
    before = os.umask(0)
    try:
        world.open().close()
    finally:
        os.umask(before)
    assert (world.directory / "state").stat().st_mode & 0o777 == 0o750
