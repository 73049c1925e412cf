-- KEYS: a key of the installation. ARGV: commands as JSON lists. Which of them the asker may not
-- give, by their places from 1 on; nothing is carried out.
local denied = {}
for at, command in ipairs(ARGV) do
  local known, allowed = pcall(redis.acl_check_cmd, unpack(cjson.decode(command)))
  if not known or not allowed then denied[#denied + 1] = at end
end
return denied
