"""Runs the KMIP server of PyKMIP for a test, and prints its port.

    pykmip_server.py CERTIFICATE KEY CA FOLDER DATABASE {stock|modern} [PORT [USER PASSWORD]]

The server of the package would need a port that is known before, and would outlive a test that was killed. `stock` is its
suite TLS1.2, which shares a cipher suite with Coffer when the certificate is of an elliptic curve; `modern`
allows TLS 1.3, and the suites of TLS 1.2 with forward secrecy for RSA, too. With USER and PASSWORD clients must send them beside
their certificate; the package decodes them, and would ask a service of its own whether they are right.
"""

import os
import signal
import ssl
import sys
import threading
import warnings

# The package names ciphers that are about to be removed from its library.
warnings.simplefilter("ignore")

from kmip.services import auth  # noqa: E402
from kmip.services.server import auth as identification  # noqa: E402
from kmip.services.server.server import KmipServer  # noqa: E402


def end_with_the_test():
    """Ends this process and its children when the test, which holds the other end, is gone.

    Not by sys.stdin: its lock would be held for ever in the children that the server forks.
    """
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def connector(user, password):
    """Stands in for the connector to the service that knows users: there is one."""

    class Connector:
        def __init__(self, url):
            pass

        def authenticate(self, certificate, connection, credentials):
            sent = [credential.credential_value for credential in credentials]
            if [(value.username, value.password) for value in sent] != [(user, password)]:
                raise ValueError("wrong user or password")
            return user, None

    return Connector


def main():
    certificate, key, ca, folder, database, suite, *more = sys.argv[1:]
    port, account = more[:1], more[1:]
    threading.Thread(target=end_with_the_test, daemon=True).start()
    if suite == "modern":
        auth.TLS12AuthenticationSuite.protocol = property(lambda self: ssl.PROTOCOL_TLS_SERVER)
        auth.TLS12AuthenticationSuite.ciphers = property(lambda self: "ECDHE+AESGCM")
    policies = os.path.join(folder, "policies")
    os.makedirs(policies, exist_ok=True)
    server = KmipServer(
        hostname="127.0.0.1",
        certificate_path=certificate,
        key_path=key,
        ca_path=ca,
        auth_suite="TLS1.2",
        config_path=None,
        log_path=os.path.join(folder, "pykmip.log"),
        policy_path=policies,
        enable_tls_client_auth=True,
        logging_level="INFO",
        database_path=database,
    )
    # Any free port, when none is named; the check of the setting refuses 0.
    server.config.settings["port"] = port[0] if port else "0"
    if account:
        identification.SLUGSConnector = connector(*account)
        server.config.settings["auth_plugins"] = [("auth:slugs", {"enabled": "True"})]
    with server:
        # From here on clients wait for their turn; serve() listens again, which changes nothing.
        server._socket.listen(64)
        print(server._socket.getsockname()[1], flush=True)
        server.serve()


if __name__ == "__main__":
    main()
