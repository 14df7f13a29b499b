"""Judges testssl.sh's findings: none of LOW or above.

Exits with 2 where all that is wrong is that the scanner could not check something: its client leaves
as soon as its own handshake is done, and a ticket of TLS 1.3 comes after that (RFC 8446 §4.6.1), so that
now and then it has none to come back with. Then the scan is to be made again.
"""

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
if len(findings) < 50:
    sys.exit(1)
unchecked = [f for f in wrong if f["id"] == "sessionresumption_ticket" and "connect problem" in f["finding"]]
sys.exit(0 if not wrong else 2 if unchecked == wrong else 1)
