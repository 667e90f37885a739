"""One notebook that every front end must run: cells, and what each must show."""

from __future__ import annotations

SCENARIO = (
    ("const basket: string[] = ['tea']", ""),
    ("basket.push('milk'); basket", "[ 'tea', 'milk' ]"),
    ("for (const item of basket) console.log('buy', item)", "buy tea\nbuy milk"),
    ("await Promise.resolve(6 * 7)", "42"),
    ("basket.length = 0; nowhere", "ReferenceError: nowhere is not defined"),
    ("%rewind 2", "now at checkpoint 2: basket.push('milk'); basket"),
    ("basket.join()", "'tea,milk'"),
)
