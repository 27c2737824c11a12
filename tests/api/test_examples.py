"""The examples in the docstrings of the Python API run as they stand, on a campaign named tiny."""

import doctest

import pytest

import tuner
import tuner.api.asking
import tuner.api.records
import tuner.api.stability
import tuner.api.training
import tuner.reading

MODULES = (tuner.reading, tuner.api.asking, tuner.api.records, tuner.api.stability, tuner.api.training)
EXAMPLES = {
    test.name.rpartition(".")[2]: test
    for module in MODULES
    for test in doctest.DocTestFinder(exclude_empty=True).find(module)
    if test.examples
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_gives_what_it_shows(name, campaign):
    test = EXAMPLES[name]
    test.globs = {"tuner": tuner, "campaign": campaign}
    told = []
    failed, _ = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=told.append)
    assert not failed, "".join(told)


def test_every_function_of_the_api_has_an_example():
    assert sorted(EXAMPLES) == sorted(set(tuner._API) - {"CampaignRecords"})
