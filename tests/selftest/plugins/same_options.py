"""Another plugin of pytest with options that we have, too: with a value, a number, a switch."""


def pytest_addoption(parser):
    group = parser.getgroup("others")
    group.addoption("--device", default="cuda")
    group.addoption("--seed", type=int, default=0)
    group.addoption("--offline", action="store_true")
