"""Pages on which people look at labelled pictures: how noisy are the labels?"""
