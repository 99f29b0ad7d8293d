import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mini_internvl

model = mini_internvl.load("mini-internvl-tiny")
one_at_a_time = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply({"data": [{"id": "tiny"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = asked["messages"][-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        images = [base64.b64decode(url.partition(",")[2]) for url in urls]
        text = "".join(part.get("text", "<image>") for part in parts)
        with one_at_a_time:
            answer = model.chat(images, text, max_new_tokens=asked["max_tokens"])
        message = {"role": "assistant", "content": answer}
        self.reply({"choices": [{"message": message, "finish_reason": "stop"}]})

    def reply(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
