"""A plugin that runs every test twice, under names of its own."""


def pytest_generate_tests(metafunc):
    metafunc.fixturenames.append("times")
    metafunc.parametrize("times", [1, 2])
