"""What the study of task groups says in words."""

from mtl_optax.study.blocks import truth
from mtl_optax.study.compare import Judgement
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.verdicts import groups, null, paired

JOINT, DEFAULT, CHOSEN = "joint", "selective_groups", "selective_preference"
NEVER = (
    "The paper's default preference, the median of the similarities, never merged any "
    "two tasks here"
)
WHY = (
    "with two tasks the median is (1 + x) / 2 where x is their similarity, which is "
    "above x, so that each stays alone whatever x is"
)


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """Who finds the blocks, and what groups are worth."""
    blocks = truth(len(tasks))
    words, sentences, statements = {}, {}, []
    for method, outcome in outcomes.items():
        labels = outcome.readings.get("groups")
        if method == JOINT:
            words[method] = "baseline"
            sentences[method] = "joint is the baseline of this comparison."
            if len(tasks) > 2:
                made = groups.tag_groups(outcome.readings["affinity"][-1, 0])
                words[method] = f"TAG: {groups.word(made, blocks)}"
                statements.append(_found("TAG", made, blocks))
                sentences[method] += f" TAG chose {groups.counted(made, tasks)}."
            else:
                statements.append(
                    "With two tasks TAG has no choice: its smallest group is both."
                )
        elif labels is not None:
            made = list(map(groups.partition, labels[-1, 0]))
            words[method] = groups.word(made, blocks)
            statements.append(_found(method, made, blocks))
            sentences[method] = (
                f"{method} ended with {groups.counted(made, tasks)}; in the second "
                f"half of training the blocks were there in "
                f"{100 * groups.share_recovered(labels[:, 0], blocks):.0f} % of steps."
            )
        else:
            words[method], sentences[method] = "", f"{method}:"
        if method != JOINT and JOINT in outcomes:
            difference = (outcome.score - outcomes[JOINT].score)[0]
            words[method] = words[method] or null.verdict(difference)
            mean = paired.change(difference.mean(axis=1))
            sentences[method] += f" Mean over tasks {mean} points from joint."
    if DEFAULT in outcomes and CHOSEN in outcomes:
        statements.append(_default(outcomes, len(tasks)))
    return Judgement(words, sentences, " ".join(statements))


def _found(name: str, made: list[groups.Groups], blocks: groups.Groups) -> str:
    number = sum(groups.recovered(x, blocks) for x in made)
    return f"{name} recovers the blocks in {number} of {len(made)} seeds."


def _default(outcomes: dict[str, Outcome], num_tasks: int) -> str:
    """Whether the default preference merges, and what does where it does not."""
    if groups.ever_merged(outcomes[DEFAULT].readings["groups"]):
        return "The paper's default preference does merge tasks here."
    why = f": {WHY}" if num_tasks == 2 else ""
    merges = groups.ever_merged(outcomes[CHOSEN].readings["groups"])
    does = "does in some seed" if merges else "does not either"
    needed = groups.merging_preference(outcomes[DEFAULT].readings["affinity"][-1, 0])
    setting = (
        f"With the affinities at its end, a preference of {needed:g} or less merges "
        f"tasks in every seed"
        if needed is not None
        else f"Nor would any preference down to {groups.PREFERENCES[-1]:g}"
    )
    return f"{NEVER}{why}. {CHOSEN} {does}. {setting}."
