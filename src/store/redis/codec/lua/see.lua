-- A sign of life of the live session at `seat`: what an admission and a sighting have in common. Here are `limit`, and `flags`, the
-- session's as they are to be but for what follows from this; this sets `expires` and `patch`.
--
-- Needs  open.lua, and `limit` and `flags`
-- Sets   `roster`, `changed`, `expires`, `patch`, `flags`

local tail = seat + KEY_AT + #key
if now - unpack('>I6', roster, tail) >= PROVEN then
  if flags % (2 * PLAYED) < PLAYED then
    flags = flags + PLAYED
  end
  if flags % (2 * PROVISIONAL) >= PROVISIONAL and seats <= limit then
    flags = flags - PROVISIONAL
  end
end
if flags ~= byte(roster, tail + MILLIS) then
  roster = sub(roster, 1, tail + (MILLIS - 1)) .. string.char(flags) .. sub(roster, tail + (MILLIS + 1))
  changed = true
end
if flags % (2 * PROVISIONAL) < PROVISIONAL and expires < now + lease then
  expires = now + lease
end
patch = pack('>I6I6', expires, now)
