"""Verifies `evenkeel ledger export --jsonl FILE` without Evenkeel: python3 verify_export.py FILE LOG_KEY [WITNESS_KEY ...]
LOG_KEY is the log's newest public key, as you keep it. Prints the head, or exits 1 with the first bad entry."""
import base64, hashlib, json, struct, sys
P, Q = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D, I = -121665 * pow(121666, -1, P) % P, pow(2, (P - 1) // 4, P)
sha = lambda *parts: hashlib.sha256(b"".join(parts)).digest()
def point(s):  # RFC 8032, section 5.1.3
    n = int.from_bytes(s, "little"); y = n % 2**255; u, v = y * y - 1, D * y * y + 1
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    x = x if (v * x * x - u) % P == 0 else x * I % P
    assert y < P and (v * x * x - u) % P == 0, "not a point of the curve"
    return (x if x % 2 == n >> 255 else P - x, y)
def add(a, b):
    (x, y), (s, t) = a, b; k = D * x * s * y * t
    return ((x * t + s * y) * pow(1 + k, -1, P) % P, (y * t + x * s) * pow(1 - k, -1, P) % P)
def mul(n, a, r=(0, 1)):
    for bit in bin(n)[2:]: r = add(add(r, r), a) if bit == "1" else add(r, r)
    return r
def signed(vkey, note):  # C2SP signed-note and tlog-cosignature: the lines of the text, if this key signed it
    name, _, key = vkey.split("+", 2); key = base64.b64decode(key); text, lines = note.rsplit("\n\n", 1); text += "\n"
    for sig in (base64.b64decode(l.split(" ")[2]) for l in lines.splitlines() if l.split(" ")[1] == name):
        said, s = (text, sig[4:]) if key[0] == 1 else (f"cosignature/v1\ntime {int.from_bytes(sig[4:12], 'big')}\n{text}", sig[12:])
        h, n = (int.from_bytes(b, "little") for b in (hashlib.sha512(s[:32] + key[1:] + said.encode()).digest(), s[32:]))
        if sig[:4] == sha(f"{name}\n".encode(), key)[:4] and n < Q and mul(n, point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))) == add(point(s[:32]), mul(h % Q, point(key[1:]))): return text.split("\n")
    sys.exit(f"the checkpoint is not signed by {vkey}")
tree, last, previous = [], 0, "0" * 64  # tree: the roots of complete subtrees, each with its height (RFC 6962)
for e in map(json.loads, open(sys.argv[1], encoding="utf-8")):
    if "sequence" not in e: continue
    gone = json.loads(e["payload"]); gone = isinstance(gone, dict) and gone.get("evenkeel_dropped_payload")
    leaf = b"evenkeel-leaf-v1\n\0" + bytes.fromhex(previous) + struct.pack(">Q", last + 1)
    for f in (e[f].encode() for f in ("timestamp", "actor", "action", "resource", "subsystem", "result")): leaf += struct.pack(">I", len(f)) + f
    node = (0, sha(b"\0", leaf, bytes.fromhex(gone["sha256"]) if gone else sha(e["payload"].encode())))
    if (e["sequence"], e["previous_hash"], e["entry_hash"]) != (last + 1, previous, node[1].hex()): sys.exit(f"first bad entry: {last + 1}")
    last, previous = e["sequence"], e["entry_hash"]
    while tree and tree[-1][0] == node[0]: node = (node[0] + 1, sha(b"\1", tree.pop()[1], node[1]))
    tree.append(node)
while len(tree) > 1: tree[-2:] = [(0, sha(b"\1", tree[-2][1], tree[-1][1]))]
head = [sys.argv[2].split("+")[0], str(last), base64.b64encode(tree[0][1]).decode()]
if any(signed(vkey, e["checkpoint"])[:3] != head for vkey in sys.argv[2:]): sys.exit(f"these {last} entries are not those of the checkpoint")
print(f"{last} entries verify, head {previous}")
