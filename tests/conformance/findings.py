"""Judges testssl.sh's findings: none of LOW or above."""

import json
import sys

# What is no property of the gateway.
EXCEPTED = {
    # A record in the DNS of the certificate's name.
    "DNS_CAArecord",
    # About the openssl that the scan itself uses.
    "engine_problem",
}
BAD = ("LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL")

findings = json.load(open(sys.argv[1]))
wrong = [f for f in findings if f["severity"] in BAD and f["id"].split(" ")[0] not in EXCEPTED]
print(f"{len(findings)} findings, {len(wrong)} of LOW or above")
for f in wrong:
    print(f"  {f['severity']} {f['id']}: {f['finding']}")
# A scan that broke off finds nothing.
sys.exit(bool(wrong) or len(findings) < 50)
