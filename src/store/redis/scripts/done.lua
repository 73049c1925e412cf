-- Notes that licences' own slots know their terms; a later change still has to be told.
-- KEYS: behind
-- ARGV: version and id of each
for at = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[at + 1])
  if score and tonumber(score) <= tonumber(ARGV[at]) then redis.call('ZREM', KEYS[1], ARGV[at + 1]) end
end
return 1
