"""What is planted in simulated brains is found by the chain of analyses, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import simulated_chain as sim

from bids_brainlm.numerics import comparison, correspondence, decoding, layers, partial
from bids_brainlm.numerics import specialization as components
from bids_brainlm.numerics.multiple import benjamini_hochberg
from bids_brainlm.numerics.specificity import compare_specificity
from bids_brainlm.steps import regions, specialization

N_PEOPLE = 10


def listeners(rng, signal, share):
    """Give ten people the same signal, (n_trs, n_parcels), and noise of their own."""
    n_trs, n_parcels = signal.shape
    wide = np.tile(signal, (1, N_PEOPLE))
    return sim.brains(rng, N_PEOPLE, n_trs, n_parcels, wide, share)


def by_person(values, n_parcels):
    """Give results of targets the axes participant, parcel, ..."""
    return values.reshape(N_PEOPLE, n_parcels, *values.shape[1:])


def group_q(r):
    """Adjusted p of a group, (n_people, n_parcels, n_columns), one family."""
    p = sim.flip_test(np.arctanh(r))
    return benjamini_hochberg(p.ravel()).reshape(p.shape)


def mean_r(r):
    return np.tanh(np.arctanh(r).mean(axis=0))


# Heads


def heads_group(own_share, share):
    """Every parcel follows one head of a story; group means and q, (n_parcels, n_heads)."""
    story = sim.story(1, 1, n_trs=300, own_share=own_share)
    rng = np.random.default_rng([61, int(10 * own_share)])
    weights = rng.standard_normal((story.n_heads, story.by_head.shape[2]))
    signal = sim.response(np.einsum("htd,hd->th", story.by_head, weights))
    found = story.headwise(listeners(rng, signal, share))
    r = by_person(found.r, story.n_heads)
    return mean_r(r), group_q(r)


def test_planted_heads_have_the_largest_r():
    """Heads share half of their variance with others."""
    mean, q = heads_group(0.5, 0.3)
    right = np.eye(len(mean), dtype=bool)
    assert (mean.argmax(axis=1) == np.arange(len(mean))).mean() > 0.9
    assert (q[right] <= 0.05).mean() > 0.9
    assert mean[right].mean() > 3 * mean[~right].mean()


def test_other_heads_are_not_found_where_heads_share_nothing():
    mean, q = heads_group(1.0, 0.3)
    right = np.eye(len(mean), dtype=bool)
    assert (mean.argmax(axis=1) == np.arange(len(mean))).all()
    assert (q[right] <= 0.05).all()
    assert (q[~right] <= 0.05).mean() < 0.05
    assert abs(mean[~right].mean()) < 0.01


# Layers


def test_planted_layers_are_preferred():
    story = sim.story(2, 1, n_trs=300, n_layers=4)
    rng = np.random.default_rng(62)
    planted = np.arange(12) % 4
    units = story.embeddings.shape[2]
    for space in (story.embeddings, story.heads.reshape(300, 4, units)):
        weights = rng.standard_normal((12, units))
        signal = sim.response(np.einsum("tpu,pu->tp", space[:, planted], weights))
        z = by_person(story.z_of_layers(space, listeners(rng, signal, 0.5)), 12)
        found = layers.profile(100 * np.tanh(z.mean(axis=0)))
        assert (found.preferred == planted).mean() >= 0.75


def test_the_sharper_space_is_more_specific():
    """Layers of one space are alike, of the other not; brains follow one layer of the latter.

    Noise alone gives none.
    """
    rng = np.random.default_rng(63)
    story = sim.story(3, 1, n_trs=240, n_layers=4, own_share=1.0)
    smooth = story.embeddings[:, [3]] + 0.3 * story.embeddings
    sharp = story.heads.reshape(240, 4, -1)
    weights = rng.standard_normal((sharp.shape[2], 4))
    signal = sim.response(sharp[:, 1] @ weights)
    differences = []
    for share in (0.5, 0.0):
        targets = listeners(rng, signal, share)
        z = [by_person(story.z_of_layers(space, targets), 4) for space in (smooth, sharp)]
        found = compare_specificity(*z, n_permutations=999, rng=rng)
        differences.append(found.difference)
        if share:
            assert found.p < 0.01
    assert differences[0] < 2 * differences[1] or differences[1] > 0
    assert differences[0] < 0


# Head-dependency links


N_LAYERS, N_HEADS, DIM = 4, 8, 2
N_TRS = 800
CARRIED = 1.2  # size of a label in the head that carries most of it


def linked_story(rng, strength, labels):
    """Let heads carry labels, (N_TRS, n_labels), to the degrees (n_heads, n_labels)."""
    story = sim.story(
        4, 1, n_trs=N_TRS, n_layers=N_LAYERS, n_heads=N_HEADS, head_dim=DIM, own_share=0.9
    )
    directions = rng.standard_normal((*strength.shape, DIM))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    centred = labels - labels.mean(axis=0)
    by_head = story.by_head + CARRIED * np.einsum("hl,tl,hld->htd", strength, centred, directions)
    wide = np.moveaxis(by_head, 0, 1).reshape(story.heads.shape)
    return sim.Story(wide, story.embeddings, story.nuisance, story.plan)


def correspond(story, labels, gains, rng):
    """Decode labels, encode brains that take ``gains`` (n_heads, n_parcels) of heads, correlate."""
    plan = decoding.make_plan(np.arange(story.n_trs), 4, 3, 4)
    accuracy = decoding.decode(
        story.by_head, labels > 0, plan, C=(1e-2, 1.0), n_permutations=0
    ).accuracy
    n_parcels = gains.shape[1]
    weights = rng.standard_normal((story.n_heads, n_parcels, DIM))
    parts = np.einsum("htd,hpd->htp", story.by_head, weights)
    parts /= parts.std(axis=1, keepdims=True)
    signal = sim.response(np.einsum("htp,hp->tp", parts, gains))
    found = story.headwise(listeners(rng, signal, 0.7))
    r = by_person(found.r, n_parcels)
    people = np.arctanh(r).transpose(0, 2, 1)
    widths = correspondence.widths_of_null(accuracy, people, story.layers)
    return accuracy, correspondence.correspond(
        accuracy, mean_r(r).T, story.layers, n_permutations=1999, rng=rng, widths=widths
    )


@pytest.fixture(scope="module")
def links():
    """Three labels that heads carry to graded degrees; parcels 0 to 3 take heads by label 2."""
    rng = np.random.default_rng(64)
    labels = (sim.ar1(rng, N_TRS, 3, 0.3) > 0.3) * 1.0
    grades = np.linspace(0, 1, N_LAYERS * N_HEADS)
    strength = np.stack([rng.permutation(grades) for _ in range(3)], axis=1)
    other = np.stack([rng.permutation(grades) for _ in range(4)], axis=1)
    story = linked_story(rng, strength, labels)
    gains = np.hstack([strength[:, [2] * 4], other])
    return strength, *correspond(story, labels, gains, rng)


def test_links_of_heads_are_found(links):
    strength, accuracy, found = links
    for label in range(3):
        assert np.corrcoef(strength[:, label], accuracy[:, label])[0, 1] > 0.6
    planted = np.zeros((3, 8), bool)
    planted[2, :4] = True
    for rho, p in ((found.rho, found.p), (found.rho_within, found.p_within)):
        q = benjamini_hochberg(p.ravel()).reshape(p.shape)
        assert (q[planted] <= 0.05).sum() >= 3
        assert (q[~planted] <= 0.05).sum() <= 1
        assert rho[planted].mean() > 0.45
        assert abs(rho[~planted].mean()) < 0.15


def test_depth_alone_is_found_over_all_heads_only():
    """Deeper layers carry a label and drive brains, all heads of a layer alike."""
    rng = np.random.default_rng(65)
    labels = (sim.ar1(rng, N_TRS, 1, 0.3) > 0.3) * 1.0
    depth = np.repeat(np.arange(N_LAYERS) / (N_LAYERS - 1), N_HEADS)[:, None]
    story = linked_story(rng, depth, labels)
    _, found = correspond(story, labels, np.repeat(depth, 6, axis=1) ** 1.5, rng)
    assert (found.p <= 0.01).mean() > 0.8
    assert (found.p_within <= 0.05).mean() < 0.3
    assert abs(found.rho_within.mean()) < 0.2


# Partial correlation


@pytest.mark.parametrize("planted", ["embeddings", "transformations", "shared"])
def test_what_spaces_add_to_each_other(planted):
    """Both hold the same sources and others of their own."""
    rng = np.random.default_rng([66, len(planted)])
    story = sim.story(6, 1, n_trs=300)
    sources = {name: sim.ar1(rng, 300, 4, 0.4) for name in ("embeddings", "transformations",
                                                           "shared")}  # fmt: skip
    size = 0.4 if planted == "shared" else 1.0  # of what a space has of its own
    spaces = [
        np.hstack([size * sources[name], sources["shared"]]) @ rng.standard_normal((8, 8))
        for name in ("embeddings", "transformations")
    ]
    signal = sim.response(sources[planted] @ rng.standard_normal((4, 6)))
    targets = listeners(rng, signal, 0.4)
    fits = [story.fit(space, targets) for space in spaces]
    observed = [fits[0].observed[rows] for rows in story.plan.segments]
    first, second = (story.in_folds(fit) for fit in fits)
    r = [
        by_person(partial.mean_partial_r(observed, *pair), 6)[..., None]
        for pair in ((first, second), (second, first))
    ]
    whole = [fit.r.mean() for fit in fits]
    if planted == "shared":
        assert min(whole) > 0.2
        assert max(part.mean() for part in r) < 0.5 * min(whole)
        return
    own, other = r if planted == "embeddings" else r[::-1]
    assert (group_q(own) <= 0.05).all()
    assert own.mean() > 0.2
    assert other.mean() < 0.05
    assert (group_q(other) <= 0.05).mean() <= 0.2


# Single features


def test_planted_dependencies_are_found_among_fourteen():
    """Two labels are in a parcel each, one parcel is noise; labels occur together."""
    rng = np.random.default_rng(67)
    story = sim.story(7, 1, n_trs=300)
    values = sim.ar1(rng, 300, 14, 0.3) + 0.5 * sim.ar1(rng, 300, 1, 0.3)
    labels = (values > np.quantile(values, np.linspace(0.5, 0.85, 14), axis=0).diagonal()) * 1.0
    signal = sim.response(np.column_stack([labels[:, 3], labels[:, 9], rng.standard_normal(300)]))
    signal[:, 2] = 0.0
    targets = listeners(rng, signal, 0.25)
    r = np.stack([story.fit(one[:, None], targets).r for one in labels.T], axis=1)
    r = by_person(r, 3)
    q, mean = group_q(r), mean_r(r)
    assert mean[0].argmax() == 3
    assert mean[1].argmax() == 9
    assert q[0, 3] <= 0.05
    assert q[1, 9] <= 0.05
    assert (q[2] > 0.05).all()
    assert mean[[0, 1], [3, 9]].min() > 2 * np.sort(mean[:2], axis=1)[:, -2].max()


# Specialization


def noise_of_speeds(rng, n_trs, speeds):
    """Draw noise of ten people whose parcels have these lag-1 autocorrelations."""
    own = np.stack([sim.ar1(rng, n_trs, N_PEOPLE, speed) for speed in speeds], axis=2)
    return (own + 0.7 * sim.ar1(rng, n_trs, N_PEOPLE, 0.4)[:, :, None]) / np.sqrt(1.49)


@pytest.fixture(scope="module", params=["alike", "unlike"])
def dimensions(request):
    """Some parcels take deep heads, some heads that look far back, through real weights.

    Heads differ in how much all parcels take of them, too, which is no component. The noise of
    parcels is as slow as each other's, or not.
    """
    rng = np.random.default_rng(68)
    story = sim.story(8, 1, n_trs=800, n_layers=6, n_heads=4, head_dim=2, own_share=1.0)
    deep = (story.layers - 3.5) / 1.7
    far = np.tile([-1.3, -0.4, 0.4, 1.3], 6) + 0.2 * rng.standard_normal(24)
    parcels = np.array([[1, 0]] * 4 + [[-1, 0]] * 4 + [[0, 1]] * 2 + [[0, -1]] * 2)
    overall = np.random.default_rng(72).standard_normal((24, 1))
    gains = np.exp(0.9 * np.column_stack([deep, far]) @ parcels.T + 0.5 * overall)
    weights = rng.standard_normal((24, 12, 2))
    parts = np.einsum("htd,hpd->htp", story.by_head, weights)
    parts /= parts.std(axis=1, keepdims=True)
    signal = sim.response(np.einsum("htp,hp->tp", parts, gains))
    speeds = np.full(12, 0.4)
    if request.param == "unlike":
        speeds = np.random.default_rng(73).permutation(np.linspace(0.1, 0.8, 12))
    noise = noise_of_speeds(rng, 800, speeds)
    targets = np.sqrt(0.7) * signal[:, None] + np.sqrt(0.3) * noise
    excess = story.excess(targets.reshape(800, -1), N_PEOPLE, 12)[0]
    found = components.specialize(
        excess, n_permutations=199, rng=rng, n_components=4, n_splits=10
    )
    label = rng.uniform(0.5, 0.8, 24)
    covariates = np.column_stack([story.layers, far, label])
    linked = specialization._associate(
        covariates, found.scores, story.layers, SimpleNamespace(n_permutations=999, seed=1)
    )
    return deep, far, parcels, found, linked


def test_planted_dimensions_of_heads_are_found(dimensions):
    """Components 1 and 2; their maps tell parcels that take one end from those of the other."""
    deep, far, parcels, found, _ = dimensions
    assert (found.p[:2] <= 0.05).all()
    for component, truth in enumerate((deep, far)):
        sign = np.sign(np.corrcoef(found.scores[:, component], truth)[0, 1])
        assert sign * np.corrcoef(found.scores[:, component], truth)[0, 1] > 0.85
        assert abs(np.corrcoef(found.scores[:, component], (far, deep)[component])[0, 1]) < 0.3
        of_map, planted = sign * found.loadings[component], parcels[:, component]
        assert of_map[planted > 0].min() > 0.5
        assert of_map[planted < 0].max() < -0.5
        assert np.abs(of_map[planted == 0]).max() < 0.5


def test_planted_dimensions_are_linked_to_layer_and_distance(dimensions):
    """A label that heads decode at random is linked to neither."""
    linked = dimensions[-1]
    assert abs(linked.rho[0, 0]) > 0.8
    assert linked.p[0, 0] <= 0.05
    assert linked.p[0, 1] > 0.05
    assert abs(linked.rho_within[1, 1]) > 0.8
    assert linked.p_within[1, 1] <= 0.01
    assert linked.p_within[1, 0] > 0.01  # components mix a little
    assert abs(linked.rho_within[1, 0]) < abs(linked.rho_within[1, 1]) - 0.3
    assert (linked.p_within[2, :2] > 0.05).all()


def test_weak_dimensions_of_heads_are_found_in_unlike_parcels():
    """Seven groups in which the model has 10 % of the variance of parcels that differ in speed."""
    p, r = [], []
    parcels = np.repeat([1.0, -1.0], 6)
    speeds = np.random.default_rng(74).permutation(np.linspace(0.1, 0.8, 12))
    for seed in range(7):
        rng = np.random.default_rng([75, seed])
        story = sim.story(11, seed, n_trs=400, n_layers=6, n_heads=2, head_dim=2, own_share=1.0)
        deep = (story.layers - 3.5) / 1.7
        weights = rng.standard_normal((12, 12, 2))
        parts = np.einsum("htd,hpd->htp", story.by_head, weights)
        parts /= parts.std(axis=1, keepdims=True)
        signal = sim.response(np.einsum("htp,hp->tp", parts, np.exp(0.9 * np.outer(deep, parcels))))
        noise = noise_of_speeds(rng, 400, speeds)
        targets = np.sqrt(0.1) * signal[:, None] + np.sqrt(0.9) * noise
        excess = story.excess(targets.reshape(400, -1), N_PEOPLE, 12)[0]
        found = components.specialize(
            excess, n_permutations=199, rng=rng, n_components=1, n_splits=1
        )
        p.append(found.p[0])
        r.append(abs(np.corrcoef(found.scores[:, 0], deep)[0, 1]))
    assert (np.array(p) <= 0.05).all()
    assert np.mean(r) > 0.6


# Comparison


def test_a_planted_difference_of_spaces_is_found():
    """Two spaces hold half of the sources each, the third all; in one of four parcels only."""
    rng = np.random.default_rng(69)
    story = sim.story(9, 1, n_trs=300)
    sources = sim.ar1(rng, 300, 8, 0.4)
    wanted = {"all": slice(0, 8), "left": slice(0, 4), "right": slice(4, 8)}
    drawn = rng.standard_normal((2, 4, 4))
    halves = [
        sim.response(sources[:, part] @ weights)
        for part, weights in zip((wanted["left"], wanted["right"]), drawn, strict=True)
    ]
    signal = (halves[0] + halves[1]) / np.sqrt(2)
    signal[:, 1:] = 0.0
    targets = listeners(rng, signal, 0.5)
    spaces = {}
    for name, some in wanted.items():
        layered = np.stack(
            [sources[:, some], sources[:, some] + 2 * rng.standard_normal(sources[:, some].shape)],
            axis=1,
        )
        spaces[name] = comparison.chosen(by_person(story.z_of_layers(layered, targets), 4))
    found = comparison.compare(spaces, n_permutations=1100, n_bootstraps=200, rng=rng)
    assert found.pairs == (("all", "left"), ("all", "right"), ("left", "right"))
    assert (found.difference[:2, 0] > 0.05).all()
    assert (found.q[:2, 0] <= 0.05).all()
    assert (found.p_fwe[:2, 0] <= 0.05).all()
    assert (found.low[:2, 0] > 0).all()
    assert (found.q[:, 1:] > 0.05).all()
    assert abs(found.difference[2, 0]) < found.difference[:2, 0].min()


# Regions


def test_a_planted_region_is_found():
    """Eight parcels in three regions of interest, one of which follows the story."""
    rng = np.random.default_rng(70)
    story = sim.story(10, 1, n_trs=240)
    space = story.embeddings[:, 1]
    signal = sim.response(space @ rng.standard_normal((space.shape[1], 8)))
    members = [["p0", "p3", "p5"], ["p1", "p2"], ["p4", "p6", "p7"]]
    names = [f"p{k}" for k in range(8)]
    planted = np.isin(names, members[0])
    targets = listeners(rng, signal * planted, 0.2)
    z = by_person(np.arctanh(story.fit(space, targets).r), 8)
    job = SimpleNamespace(facts={"regions": regions.facts_of("ABC", ["#000000"] * 3, members)})
    averaged = [regions.average(job, names, one[:, None]) for one in z]
    assert averaged[0][0] == ["A", "B", "C"]
    of_regions = np.tanh(np.stack([values for _, values in averaged]))
    q = group_q(of_regions)[:, 0]
    assert q[0] <= 0.05
    assert (q[1:] > 0.05).all()
    np.testing.assert_allclose(np.arctanh(of_regions[:, 0, 0]), z[:, planted].mean(axis=1))
