"""Reads an emulated fleet with proxmoxer, a public Proxmox client that knows nothing of this project.

Usage: read_fleet.py INSTANCES_JSON

Every pve, pbs and pmg instance of the file is read, with the token or password that the file gives, and its
certificate checked against the authority that the file names. The first thing that is not as documented
ends the run with a traceback.
"""

import json
import sys

import requests
from proxmoxer import ProxmoxAPI, ResourceException
from proxmoxer.core import AuthenticationError

NUMBER = (int, float)


class TokenSession:
    """Calls a gateway by token: proxmoxer signs in to those by password only."""

    def __init__(self, address, token, authority):
        self.session = requests.Session()
        self.session.verify = authority
        self.session.trust_env = False  # or a bundle named by the environment would replace the authority
        self.session.headers["Authorization"] = f"PMGAPIToken={token}"
        self.base = f"https://{address}/api2/json"

    def get(self, path, **parameters):
        response = self.session.get(f"{self.base}/{path}", params=parameters, timeout=5)
        response.raise_for_status()
        return response.json()["data"]


class LibrarySession:
    """Calls any host through proxmoxer."""

    def __init__(self, api):
        self.api = api

    def get(self, path, **parameters):
        return self.api.get(path, **parameters)


def address_of(instance):
    return instance["url"].removeprefix("https://")


def sign_in(instance, secret=None):
    auth, authority = instance["auth"], instance["tls"]["caFile"]
    service, address = instance["type"].upper(), address_of(instance)
    if "tokenId" in auth:
        secret = secret or auth["secret"]
        if service == "PMG":
            return TokenSession(address, f"{auth['tokenId']}:{secret}", authority)
        user, name = auth["tokenId"].split("!")
        api = ProxmoxAPI(
            address, user=user, token_name=name, token_value=secret, service=service, verify_ssl=authority
        )
    else:
        api = ProxmoxAPI(
            address, user=auth["user"], password=secret or auth["password"], service=service, verify_ssl=authority
        )
    return LibrarySession(api)


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def expect_fields(entry, where, **types):
    for field, kind in types.items():
        field = field.replace("__", "-")
        expect(isinstance(entry.get(field), kind), f"{where}: {field} is {entry.get(field)!r}")


def read_pve(session):
    expect_fields(session.get("version"), "version", version=str, release=str, repoid=str)
    nodes = session.get("nodes")
    expect(nodes, "there are nodes")
    for node in nodes:
        expect_fields(node, "nodes", node=str, status=str, id=str, cpu=NUMBER, maxcpu=int, mem=int, maxmem=int)
        expect_fields(node, "nodes", disk=int, maxdisk=int, uptime=int, ssl_fingerprint=str)
        status = session.get(f"nodes/{node['node']}/status")
        expect_fields(status, "status", uptime=int, loadavg=list, memory=dict, rootfs=dict, cpuinfo=dict)
        expect_fields(status, "status", pveversion=str, kversion=str, swap=dict)
        expect(all(isinstance(load, str) for load in status["loadavg"]), "loads come as strings")
        for storage in session.get(f"nodes/{node['node']}/storage"):
            expect_fields(storage, "storage", storage=str, type=str, content=str, active=int, total=int, used=int)
        for disk in session.get(f"nodes/{node['node']}/disks/list"):
            expect_fields(disk, "disks", devpath=str, model=str, serial=str, size=int, health=str)
        for kind in ("qemu", "lxc"):
            for guest in session.get(f"nodes/{node['node']}/{kind}"):
                expect_fields(guest, kind, vmid=(int, str), name=str, status=str, maxmem=int)
    for entry in session.get("cluster/status"):
        expect_fields(entry, "cluster/status", type=str, id=str, name=str)
    resources = session.get("cluster/resources")
    kinds = {resource["type"] for resource in resources}
    expect({"node", "storage", "qemu", "lxc"} <= kinds, f"resources of every kind, not only {kinds}")
    machines = session.get("cluster/resources", type="vm")
    expect({machine["type"] for machine in machines} == {"qemu", "lxc"}, "type=vm means guests")
    return f"{len(nodes)} nodes, {len(resources)} resources"


def read_pbs(session):
    expect_fields(session.get("version"), "version", version=str, release=str, repoid=str)
    expect_fields(session.get("nodes")[0], "nodes", node=str)
    status = session.get("nodes/localhost/status")
    expect_fields(status, "status", cpu=NUMBER, uptime=int, memory=dict, root=dict, loadavg=list, info=dict)
    stores = session.get("admin/datastore")
    expect(stores, "there are datastores")
    for store in stores:
        expect_fields(store, "datastore", store=str)
        status = session.get(f"admin/datastore/{store['store']}/status")
        expect_fields(status, "datastore status", total=int, used=int, avail=int, gc__status=dict)
    for usage in session.get("status/datastore-usage"):
        expect_fields(usage, "usage", store=str, total=int, used=int, avail=int, history=list)
        expect_fields(usage, "usage", estimated__full__date=int)
    return f"{len(stores)} datastores"


def read_pmg(session):
    expect_fields(session.get("version"), "version", version=str, release=str, repoid=str)
    node = session.get("nodes")[0]["node"]
    expect_fields(session.get(f"nodes/{node}/status"), "status", uptime=int, insync=int, pmgversion=str)
    expect(session.get("config/cluster/status") == [], "a single gateway has no cluster")
    alone = session.get("config/cluster/status", list_single_node=1)
    expect_fields(alone[0], "config/cluster/status", type=str, name=str, ip=str, cid=int)
    queues = [queue["name"] for queue in session.get(f"nodes/{node}/postfix/queue")]
    expect(queues == ["deferred", "active", "incoming", "hold"], f"the queues are {queues}")
    for queue in queues:
        total = session.get(f"nodes/{node}/postfix/qshape", queue=queue)[0]
        expect(total["domain"] == "TOTAL" and total["total"].isdigit(), f"the shape of {queue} is {total}")
    mail = session.get("statistics/mail")
    for field in ("count", "count_in", "count_out", "bytes_in", "spamcount_in", "viruscount_in", "avptime"):
        float(mail[field])
    spam = session.get("quarantine/spamstatus")
    expect(int(spam["count"]) >= 0 and float(spam["mbytes"]) >= 0, f"the quarantine holds {spam}")
    return f"{mail['count']} mails today"


def expect_refusal(instance):
    """A wrong secret is turned away as the library expects it."""
    try:
        sign_in(instance, secret="wrong").get("version")
    except AuthenticationError:
        expect("password" in instance["auth"], "only a password fails at sign-in")
    except ResourceException as error:
        expect(error.status_code == 401, f"refused with {error.status_code}")
    except requests.HTTPError as error:
        expect(error.response.status_code == 401, f"refused with {error.response.status_code}")
    else:
        raise AssertionError("a wrong secret was let in")


def main(path):
    readers = {"pve": read_pve, "pbs": read_pbs, "pmg": read_pmg}
    with open(path, encoding="utf-8") as file:
        instances = [entry for entry in json.load(file)["instances"] if entry["type"] in readers]
    for instance in instances:
        way = "token" if "tokenId" in instance["auth"] else "password"
        summary = readers[instance["type"]](sign_in(instance))
        expect_refusal(instance)
        print(f"{instance['type']}::{instance['name']} by {way}: {summary}")
    print(f"{len(instances)} read")


if __name__ == "__main__":
    main(sys.argv[1])
