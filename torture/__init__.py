"""`make torture`: a real node under fire, and the table of what it lost. No part of the product."""
