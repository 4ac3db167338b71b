"""Reads an OpenAPI document on standard input: is it one, and is each of its examples what the schema beside it says?"""

import json
import sys

import jsonschema
import openapi_spec_validator

document = json.load(sys.stdin)
assert document["openapi"].startswith("3.1"), document["openapi"]
openapi_spec_validator.validate(document)

formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
tried = 0


def validate(schema, example, where):
    global tried
    tried += 1
    # References lead from the root of the document, which this schema has to look like.
    rooted = {**schema, "components": document["components"]}
    validator = jsonschema.Draft202012Validator(rooted, format_checker=formats)
    for error in validator.iter_errors(example):
        sys.exit(f"the example at {where} is not what its schema says: {error}")
    if "contentSchema" in schema:
        validate(schema["contentSchema"], json.loads(example), where)


def walk(node, where):
    if isinstance(node, list):
        for index, item in enumerate(node):
            walk(item, f"{where}/{index}")
    elif isinstance(node, dict):
        schema = node.get("schema", node)
        if "example" in node:
            validate(schema, node["example"], where)
        for name, example in node.get("examples", {}).items():
            validate(schema, example["value"], f"{where}/examples/{name}")
        for name, item in node.items():
            if name not in ("example", "examples"):
                walk(item, f"{where}/{name}")


walk(document, "#")
print(f"OpenAPI {document['openapi']}: valid, and so are {tried} examples")
