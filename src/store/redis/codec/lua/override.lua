-- Reads the limit that an operator has set for the user, which takes the place of the configured one.
--
-- KEYS[2]  the override, in the same slot as the roster: u8 version, u16 limit, u48 until. Anything
--          else at this key counts as none. Absent while a cluster moves that slot
-- ARGV[3]  without KEYS[2], the override, as far as it is known
--
-- Needs  open.lua. Sets `override`: the limit, or NONE

local override = NONE
do
  local found = KEYS[2] and call('GET', KEYS[2]) or ARGV[3]
  if found and #found == OVERRIDE_BYTES then
    local form, limit, till = unpack('>BI2I6', found)
    if form == OVERRIDE_VERSION and till > now then
      override = limit
    end
  end
end

