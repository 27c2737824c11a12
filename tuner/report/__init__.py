"""A campaign bound into one self-contained HTML page.

`material` reads everything once; each *section* is a function from that material to the content of one template of
the same name; `page.SECTIONS` is their order. The page needs nothing from outside, runs no script, and shows
whatever users wrote (names, goals, reasons) as text and nothing else (R59).
"""
