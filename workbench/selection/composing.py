def composed_candidates(shop, problem, candidates, reformat):
    return ()
