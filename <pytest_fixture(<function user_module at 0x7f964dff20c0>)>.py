print("x" * 10**7)


def loud(**o):
    print("y\n" * 10**6)
    return linear(**o)
