-- A sign of life of the live session at `seat`: what an admission and a sighting have in common. Here are `limit`, and `flags`, the
-- session's as they are to be but for what follows from this; this sets `expires` and `patch`.

local tail = seat + 14 + #key
if now - unpack('>I6', roster, tail) >= PROVEN then
  if flags % 32 < 16 then
    flags = flags + 16
  end
  if flags % 64 >= 32 and seats <= limit then
    flags = flags - 32
  end
end
if flags ~= byte(roster, tail + 6) then
  roster = sub(roster, 1, tail + 5) .. string.char(flags) .. sub(roster, tail + 7)
  changed = true
end
if flags % 64 < 32 and expires < now + lease then
  expires = now + lease
end
patch = pack('>I6I6', expires, now)
