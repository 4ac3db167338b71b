-- Remembers the end of a session of which there is no tombstone yet. `cause` is its cause, with the key of the session that took its
-- slot where one did. At most 64 are remembered; the earliest to be forgotten makes room.

local function bury(key, cause)
  local till = now + MEMORY
  if graves >= 64 then
    local at, earliest, from, to = tombs, 2 ^ 48, nil, nil
    for _ = 1, graves do
      local length, ends = unpack('>I2I6', roster, at)
      if ends < earliest then
        earliest, from, to = ends, at, at + length
      end
      at = at + length
    end
    roster, graves = sub(roster, 1, from - 1) .. sub(roster, to), graves - 1
  end
  roster = roster .. pack('>I2I6', 8 + #key + #cause, till) .. key .. cause
  graves, first, last, changed = graves + 1, math.min(first, till), math.max(last, till), true
end
