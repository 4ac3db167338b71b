api=${API:-http://127.0.0.1:8080}         # make demo prints where its own is
auth="authorization: Bearer ${TOKEN:-}"   # a token of http.tokens_file, where that is set
json='content-type: application/json'
call() { curl -isS -w '\n' -H "$auth" -H "$json" -X "$@"; }
alice=$api/v1/users/alice/sessions

call PUT $alice/p1 -d '{"device": "tv", "content": "film-7"}'   # 201: it has started
call PUT $alice/p1 -d '{"position": 10}'                        # 200: it goes on
call PUT $alice/p2                                              # 201
call PUT $alice/p3                                              # 201
call PUT $alice/p4                                              # 429: all slots are taken, and by whom
call PUT $alice/p4 -d '{"takeover": "p1"}'                      # 201: in the slot of p1
call PUT $alice/p1                                              # 410: displaced, and by whom
call GET $alice                                                 # 200: p2, p3 and p4
for id in p2 p3 p4; do call DELETE $alice/$id; done             # 204, 204, 204; a next time takes new ids
