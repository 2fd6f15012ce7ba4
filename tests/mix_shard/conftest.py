from ..chat_models import chatml

__all__ = ["chatml"]
