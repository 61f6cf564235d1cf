-- POST of 64 KiB.
dofile(debug.getinfo(1, "S").source:match("@(.*/)") .. "report.lua")

wrk.method = "POST"
wrk.body = string.rep("a", 65536)
wrk.headers["Content-Type"] = "application/octet-stream"
