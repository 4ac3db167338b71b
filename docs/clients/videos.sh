small() {   # a method, a video, and perhaps a body
    curl -isS -w '\n' -u "alice:${TOKEN:-}" -H 'content-type: application/json' -X "$1" "${API:-http://127.0.0.1:8080}/?id=$2" ${3:+-d "$3"}
}

small GET film-7                        # 200: {"canWatch": true, "endpoint": null, "count": 0}, where http.endpoint is not set
small POST film-7                       # 201: it has started, or a problem if no slot is free
small POST film-7                       # 200: it was live already
small PATCH film-7 '{"time": "1:00"}'   # 200: it goes on
small DELETE film-7                     # 204: it has stopped
small PATCH film-7                      # 404: it isn't live, so start it again
