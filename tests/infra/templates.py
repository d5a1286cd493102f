"""Reads synthesized templates so that tests can speak of "CollectQueue" instead of hashed ids and intrinsics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A stack with known faults that every synthesis here has beside the real ones: who checks must find these.
BAIT = "bait"

_PSEUDO_PARAMETERS = {
    "AWS::Partition": "aws",
    "AWS::AccountId": "123456789012",
    "AWS::Region": "us-east-1",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "stack",
}


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource under its construct's name, as in `CollectQueue` or `CollectRole/DefaultPolicy`."""

    stack: str
    name: str
    kind: str
    body: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Any]:
        properties: Mapping[str, Any] = self.body.get("Properties", {})
        return properties


@dataclass(frozen=True, kw_only=True)
class Templates:
    """All templates of one synthesis. References are rendered as names: `ContentBucket/*` for an ARN with a suffix."""

    documents: Mapping[str, Mapping[str, Any]]
    violations: tuple[str, ...]

    def of_kind(self, kind: str) -> dict[str, Resource]:
        """The resources of a CloudFormation type, by name; at least one."""
        found = {
            (resource := self._resource(stack, logical_id)).name: resource
            for stack, document in self.documents.items()
            for logical_id, body in document["Resources"].items()
            if body["Type"] == kind
        }
        assert found, f"no {kind} in any stack"
        return found

    def rendered(self, resource: Resource) -> Any:
        """The resource's properties with every reference replaced by a name."""
        return self._render(resource.stack, resource.properties)

    def outputs(self, stack: str) -> dict[str, Any]:
        """The stack's own outputs, rendered; what CDK exports for other stacks is left out."""
        outputs = self.documents[stack]["Outputs"]
        return {name: self._render(stack, body["Value"]) for name, body in outputs.items() if "Export" not in body}

    def _resource(self, stack: str, logical_id: str) -> Resource:
        body = self.documents[stack]["Resources"][logical_id]
        path = body["Metadata"]["aws:cdk:path"].split("/")[1:]
        return Resource(stack=stack, name="/".join(path).removesuffix("/Resource"), kind=body["Type"], body=body)

    def _render(self, stack: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._render(stack, inner) for inner in value]
        if not isinstance(value, dict):
            return value
        rendered: Any
        match value:
            case {"Ref": str(name)} if name in _PSEUDO_PARAMETERS:
                rendered = _PSEUDO_PARAMETERS[name]
            case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), _]}:
                rendered = self._resource(stack, name).name
            case {"Fn::ImportValue": str(name)}:
                rendered = self._render(*self._exported(name))
            case {"Fn::Join": [str(separator), list(pieces)]}:
                rendered = separator.join(str(self._render(stack, piece)) for piece in pieces)
            case _:
                rendered = {key: self._render(stack, inner) for key, inner in value.items()}
        return rendered

    def _exported(self, name: str) -> tuple[str, Any]:
        for stack, document in self.documents.items():
            for output in document.get("Outputs", {}).values():
                if output.get("Export", {}).get("Name") == name:
                    return stack, output["Value"]
        raise KeyError(name)


def read_templates(assembly: Path) -> Templates:
    """The templates in an assembly's folder, and what the validations found."""
    documents = {path.name.split(".")[0]: json.loads(path.read_text()) for path in assembly.glob("*.template.json")}
    del documents[BAIT]
    reports = json.loads((assembly / "validation-report.json").read_text())["pluginReports"]
    return Templates(
        documents=documents,
        violations=tuple(
            f"{violation['ruleName']} at {construct['constructPath']}"
            for report in reports
            for violation in report["violations"]
            for construct in violation["violatingConstructs"]
        ),
    )


def statements(policy: Any) -> list[dict[str, Any]]:
    """The statements of a rendered policy document, with Action and Resource always lists."""
    return [
        {**statement, "Action": _listed(statement["Action"]), "Resource": _listed(statement["Resource"])}
        for statement in policy["Statement"]
    ]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
