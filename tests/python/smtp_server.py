"""A mail server on loopback that prints each mail it takes as a line of JSON.

usage: smtp_server.py MODE CERT KEY USER PASSWORD REFUSALS

MODE is `starttls` or `tls`. Only whoever signs in over TLS may send. The first REFUSALS mails are put off with 451.
The first line that it prints is {"port": N}.
"""

import asyncio
import json
import ssl
import sys
from email import message_from_bytes, policy

from aiosmtpd.smtp import SMTP, AuthResult

mode, certificate, key, user, password, refusals = sys.argv[1:]


class Takes:
    def __init__(self):
        self.refusals = int(refusals)

    async def handle_DATA(self, server, session, envelope):
        if self.refusals > 0:
            self.refusals -= 1
            say({"refused": True})
            return "451 come again later"
        mail = message_from_bytes(envelope.content, policy=policy.default)
        say(
            {
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "encrypted": session.ssl is not None or mode == "tls",
                "subject": mail["Subject"],
                "id": mail["Message-ID"],
                "date": mail["Date"],
                "text": mail.get_body(("plain",)).get_content(),
            }
        )
        return "250 taken"


def sign_in(server, session, envelope, mechanism, data):
    right = (data.login, data.password) == (user.encode(), password.encode())
    return AuthResult(success=right, handled=False)


def say(what):
    print(json.dumps(what), flush=True)


async def serve():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if mode == "starttls":
        tls, options = None, {"tls_context": context, "require_starttls": True}
    else:
        # The library knows of encryption by STARTTLS alone.
        tls, options = context, {"auth_require_tls": False}
    takes = Takes()

    def session():
        return SMTP(takes, authenticator=sign_in, auth_required=True, **options)

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", 0, ssl=tls)
    say({"port": server.sockets[0].getsockname()[1]})
    await server.serve_forever()


asyncio.run(serve())
