"""A plug-in with a network that compiles in a second, for tests of commands."""

import semanticfl_jax as sfl
from tests.federation import TinyNet


@sfl.register_model("tiny_net", about="A convolution and a classifier")
def tiny_net(settings, context):
    del settings
    return TinyNet(context.num_classes, lowering=context.config.runtime.conv)
