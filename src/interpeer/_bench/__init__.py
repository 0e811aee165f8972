"""What `interpeer bench`, `interpeer demo` and benchmarks/ share: loads between two processes, and their figures.

process       starts the two ends of a load
end           is one end
loads         what the loads are, for every library alike
figures       figures in common units from what two ends tell
tls           the loads over TLS, tuned by hand, as a baseline; its `certificate`
tls_streams   a bulk transfer over TLS as an asyncio program has it
"""
