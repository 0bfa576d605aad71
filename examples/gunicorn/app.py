"""An everyday Flask app."""

import os
import time

from flask import Flask, Response, jsonify, request

app = Flask(__name__)


@app.get("/")
def who_am_i() -> Response:
    time.sleep(0.05)  # stands for the database an everyday app waits for
    return jsonify(pid=os.getpid())


@app.post("/echo")
def echo() -> Response:
    time.sleep(0.05)
    return jsonify(request.get_json())


@app.get("/healthz")
def health() -> str:
    return "ok"
