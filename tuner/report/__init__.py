"""The report: one self-contained HTML page about a campaign.

`material` reads everything once. Each section is a record in `sections`; its parts are drawn by a template. The page
loads nothing from outside and runs no script, and names, goals and reasons of users are shown as text only.
"""
