import pytest

from secateur.recovery._lockstep import Run


def test_runs_take_turns() -> None:
    seen: list[tuple[str, int]] = []

    def work(name: str):
        def count(run: Run) -> None:
            for number in range(2):
                seen.append((name, number))
                run.pause()

        return count

    runs = [Run(work("a")), Run(work("b"))]
    for _ in range(3):
        for run in runs:
            run.go()
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert all(run.done for run in runs)


def test_what_is_raised_inside_comes_out() -> None:
    def fail(run: Run) -> None:
        run.pause()
        raise ValueError("inside")

    run = Run(fail)
    run.go()
    with pytest.raises(ValueError, match="inside"):
        run.go()
    assert run.done


def test_an_abandoned_run_ends_where_it_is() -> None:
    cleaned: list[bool] = []

    def work(run: Run) -> None:
        try:
            run.pause()
        finally:
            cleaned.append(True)

    run = Run(work)
    run.go()
    run.abandon()
    assert cleaned == [True]
    assert run.done
